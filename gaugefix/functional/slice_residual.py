"""Slice residual: how far the slice's condition is from being fulfilled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gaugefix.slices import Slice, get_slice, tensors_for
from gaugefix.symmetry import GaugeGroup

if TYPE_CHECKING:
    from torch import nn


@torch.no_grad()
def slice_residual(model: nn.Module, gauge: GaugeGroup, slice: str | Slice = "minimal_norm") -> float:
    """Return the residual of ``slice`` at ``model``: 0 exactly on the slice, and without dimension.

    For minimal norm it is ‖μ‖/‖θ‖², μ the moment map (docs/noether.md); each slice says what its own is. It costs one
    pass over the parameters, and nothing is solved: use it where the distance itself (:func:`gaugefix.drift`) is too
    dear.

    Args:
        model: any model that the group fits.
        gauge: its group.
        slice: a name or a slice.

    Raises:
        SliceError: if the slice is unknown.
        SymmetryError: if the group belongs to another model.

    Example:
        >>> import torch, gaugefix
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> gauge = gaugefix.discover(net, (torch.randn(3, 4),))
        >>> element = gaugefix.project_(net, gauge, "minimal_norm")
        >>> slice_residual(net, gauge) < 1e-3
        True
    """
    target = get_slice(slice)
    return float(target.residual(gauge, tensors_for(target, gauge, model)))
