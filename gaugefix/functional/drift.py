"""Orbit drift: how far a model has moved along its orbit, away from a slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gaugefix.slices import Slice, get_slice
from gaugefix.symmetry import Element, GaugeGroup

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Drift:
    """Distance to a slice along the orbit, in the invariant metric of the group.

    Args:
        total: ‖log g*‖, g* the element that brings the parameters onto the slice (root of the sum over symmetries).
        rms: the same per generator, total/√dimension.
        per_symmetry: rms per generator of every symmetry.
        residual: the slice's own residual (for minimal norm ‖μ‖/‖θ‖²).
    """

    total: float
    rms: float
    per_symmetry: Mapping[str, float]
    residual: float


@torch.no_grad()
def drift(model: nn.Module, gauge: GaugeGroup, slice: str | Slice = "minimal_norm") -> Drift:
    """Measure how far ``model`` is from a slice along its orbit; nothing is changed.

    Args:
        model: any model that the group fits.
        gauge: its group.
        slice: a name or a slice.

    Raises:
        SliceError: if the slice is unknown or not reached.
        NonFiniteError: if a parameter is not finite.
    """
    target = get_slice(slice)
    tensors = gauge.check(model)
    element = target.solve(gauge, tensors)
    squares = log_norms(gauge, element)
    residual = float(target.residual(gauge, tensors))
    dimension = sum(gauge[name].group.dimension for name in squares)
    total = sum(squares.values())
    return Drift(
        total=total**0.5,
        rms=(total / dimension) ** 0.5 if dimension else 0.0,
        per_symmetry={name: (value / gauge[name].group.dimension) ** 0.5 for name, value in squares.items()},
        residual=residual,
    )


def log_norms(gauge: GaugeGroup, element: Element) -> dict[str, float]:
    """Return ‖log g‖² per symmetry (steps of one symmetry composed)."""
    values: dict[str, Tensor] = {}
    for name, value in element.steps:
        group = gauge[name].group
        if group.dimension:
            values[name] = group.compose(value, values[name]) if name in values else value
    names = list(values)
    if not names:
        return {}
    distances = torch.stack(
        [
            gauge[name].group.distance(gauge[name].group.identity(device=v.device), v.double())
            for name, v in values.items()
        ]
    )
    return dict(zip(names, distances.square().tolist(), strict=True))
