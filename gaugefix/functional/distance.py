"""Distance between two checkpoints that does not see the gauge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gaugefix.errors import SymmetryError
from gaugefix.slices import Spectral
from gaugefix.slices.alignment import Alignment
from gaugefix.symmetry import GaugeGroup

if TYPE_CHECKING:
    from torch import nn

_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Distance:
    """Distance of two orbits, ``float(distance)`` is the relative one.

    Args:
        total: ‖θ_a* − θ_b*‖ against the root mean square of both norms: 0 for the same function up to gauge, about √2
            for unrelated parameters.
        absolute: ‖θ_a* − θ_b*‖.
        per_parameter: the relative distance of every parameter.
        unfixed: names of symmetries without a canonical form here, for which ``b`` was brought as near to ``a`` as
            could be found; the distance is then an upper bound.
    """

    total: float
    absolute: float
    per_parameter: Mapping[str, float]
    unfixed: tuple[str, ...] = ()

    def __float__(self) -> float:
        return self.total


@torch.no_grad()
def distance(model_a: nn.Module, model_b: nn.Module, gauge: GaugeGroup) -> Distance:
    """Return how far two checkpoints of one architecture are apart, whatever their gauge.

    Both are brought to their canonical form (:class:`gaugefix.slices.Spectral`) in float64; then signs, phases,
    permutations and the rotations of blocks of ``model_b`` are brought as near to ``model_a`` as they go, so that
    singular values that coincide, units of the same size and sums near zero decide nothing. Neither model is changed.

    Blocks of which only one factor has full rank (LoRA at initialisation) and dead units are compared at norm 1 of the
    side that is there. A block that lacks rank on both sides and an orbit without a point of least norm have no
    canonical form. Where there is one, all symmetries of ``model_b`` take part in the approach; its result is a local
    minimum, so that the distance is an upper bound, and :attr:`Distance.unfixed` names the cause. Buffers (statistics
    of batch norms) move along but are not compared. What the group does not contain counts as a difference.

    Args:
        model_a: a model.
        model_b: another one with the same parameters by name and shape.
        gauge: the group of both.

    Raises:
        SymmetryError: if the group belongs to another model, or the models have different parameters.
        NonFiniteError: if a parameter is not finite.

    Example:
        >>> import copy, torch, gaugefix
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> gauge = gaugefix.discover(net, (torch.randn(3, 4),))
        >>> other = copy.deepcopy(net)
        >>> gaugefix.act_(other, gauge, gauge.random(scale=0.3, discrete=True))
        >>> float(distance(net, other, gauge)) < 1e-5
        True
    """
    first, second = _parameters(model_a), _parameters(model_b)
    for name in first.keys() | second.keys():
        shapes = [tuple(side[name].shape) if name in side else None for side in (first, second)]
        if shapes[0] != shapes[1]:
            raise SymmetryError(
                f"Expected the same parameters in model_a and model_b, got shapes {shapes[0]} and {shapes[1]} for "
                f"'{name}'. Compare checkpoints of one architecture."
            )
    form = Spectral(_TOLERANCE)
    one, two = (form.walk(gauge, gauge.check(model), whole=True) for model in (model_a, model_b))
    here = one.tensors
    there = {name: tensor.to(here[name].device) for name, tensor in two.tensors.items()}
    loose = tuple(dict.fromkeys((*one.unfixed, *two.unfixed)))
    # what is not fixed keeps its neighbours from their canonical value; a stream's rotation has no such neighbour
    free = [s.name for s in gauge.applied if loose and (s.name in loose or not s.conditional)]
    approach = Alignment(gauge, there, here, free)
    approach.run(tolerance=1e-6, rounds=300)
    return _compare({**first, **here}, {**second, **approach.tensors}, first, loose)


def _compare(
    here: Mapping[str, Tensor], there: Mapping[str, Tensor], names: Mapping[str, Tensor], loose: tuple[str, ...]
) -> Distance:
    apart, norms, relative = 0.0, 0.0, {}
    for name in names:
        a = here[name].detach().double()
        b = there[name].detach().to(a.device).double()
        difference, norm = float((a - b).square().sum()), float(a.square().sum() + b.square().sum()) / 2
        apart, norms = apart + difference, norms + norm
        relative[name] = (difference / norm) ** 0.5 if norm else 0.0
    return Distance((apart / norms) ** 0.5 if norms else 0.0, apart**0.5, relative, loose)


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    """Parameters by name, each once."""
    return {name.replace("_orig_mod.", ""): p for name, p in model.named_parameters()}
