"""canonicalize: the canonical representative of a model, to compare checkpoints parameter by parameter."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, TypeVar

import torch

from gaugefix.slices import Spectral
from gaugefix.symmetry import GaugeGroup

if TYPE_CHECKING:
    from torch import nn

    Model = TypeVar("Model", bound=nn.Module)


@torch.no_grad()
def canonicalize(model: Model, gauge: GaugeGroup) -> Model:
    """Return a copy of ``model`` in its canonical form: the same function, with every gauge freedom fixed.

    The form is that of :class:`gaugefix.slices.Spectral`, computed in float64 and rounded once: scalings and mixings at
    least norm, blocks and streams on principal axes, units and heads sorted, signs fixed. Two models that differ by an
    element of the group have the same form up to rounding. ``model`` stays as it is; to move it, with its optimizer,
    use ``project_(model, gauge, "spectral")``.

    The form is unique where singular values, sizes of units and the sums that fix signs are distinct. Where they
    coincide, the axes stay where they are. Blocks of which only one factor has full rank and dead units are brought to
    norm 1 on the side that is there; a block that lacks rank on both sides stays. Where the form is not unique, two
    models of one orbit may differ, and :func:`gaugefix.distance` is what compares them.

    Args:
        model: any model that the group fits.
        gauge: its group.

    Raises:
        SymmetryError: if the group belongs to another model.
        NonFiniteError: if a parameter is not finite.

    Example:
        >>> import copy, torch, gaugefix
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> gauge = gaugefix.discover(net, (torch.randn(3, 4),))
        >>> other = copy.deepcopy(net)
        >>> gaugefix.act_(other, gauge, gauge.random(scale=0.3, discrete=True))
        >>> pairs = zip(canonicalize(net, gauge).parameters(), canonicalize(other, gauge).parameters())
        >>> all(torch.allclose(p, q, atol=1e-5) for p, q in pairs)
        True
    """
    moved = Spectral(tolerance=1e-10).walk(gauge, gauge.check(model), whole=True).tensors
    form = copy.deepcopy(model)
    for name, tensor in gauge.check(form).items():
        tensor.copy_(moved[name])
    return form
