"""Step drift: how far a model moved along its orbit between two moments of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gaugefix.functional.drift import distances
from gaugefix.slices import Slice, get_slice
from gaugefix.symmetry import GaugeGroup

if TYPE_CHECKING:
    from torch import nn


@torch.no_grad()
def step_drift(
    before: Mapping[str, Tensor], model: nn.Module, gauge: GaugeGroup, slice: str | Slice = "minimal_norm"
) -> dict[str, float]:
    """Return ‖log(g₀⁻¹g₁)‖ per symmetry: the motion along the orbit from ``before`` to now.

    g₀ and g₁ bring the parameters before and now onto the slice. If only the gauge changed, θ₁ = hθ₀, then g₁ = g₀h⁻¹
    and the step drift is ‖log h‖; motion across the orbit, from slice point to slice point, does not count.

    Args:
        before: parameters and buffers by name (copies, e.g. of ``model.state_dict()``); at least those that the group
            reads.
        model: the model now.
        gauge: its group.
        slice: a name or a slice.

    Raises:
        SymmetryError: if the group belongs to another model.
        SliceError: if the slice is unknown or not reached.
        NonFiniteError: if a parameter is not finite.

    Example:
        >>> import copy, torch, gaugefix
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> gauge = gaugefix.discover(net, (torch.randn(3, 4),))
        >>> before, element = copy.deepcopy(net.state_dict()), gauge.random(scale=0.1)
        >>> gaugefix.act_(net, gauge, element)
        >>> moved, expected = step_drift(before, net, gauge)["0:scale"], element.values["0:scale"].log().norm()
        >>> abs(moved - expected) < 1e-3
        tensor(True)
    """
    target = get_slice(slice)
    first = target.solve(gauge, before)
    second = target.solve(gauge, gauge.check(model))
    return {name: square**0.5 for name, square in distances(gauge, first, second).items()}
