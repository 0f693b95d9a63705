"""Orbit drift: how far a model has moved along its orbit, away from a slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gaugefix.groups import DiagonalGroup, GeneralLinear, PositiveScaling
from gaugefix.sharding import Shards
from gaugefix.slices import Slice, agreed, get_slice, tensors_for
from gaugefix.symmetry import Element, GaugeGroup

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Drift:
    """Distance to a slice along the orbit, in the invariant metric of the group.

    Args:
        total: ‖log g*‖, g* the element that brings the parameters onto the slice (root of the sum over symmetries; of a
            matrix block, the logarithms of its polar factors).
        rms: the same per generator, total/√dimension.
        per_symmetry: rms per generator of every symmetry.
        residual: the slice's own residual (for minimal norm ‖μ‖/‖θ‖²).
        element: g* itself.
    """

    total: float
    rms: float
    per_symmetry: Mapping[str, float]
    residual: float
    element: Element = field(default=Element(()), repr=False, compare=False)


@torch.no_grad()
def drift(
    model: nn.Module, gauge: GaugeGroup, slice: str | Slice = "minimal_norm", *, near: Element | None = None
) -> Drift:
    """Measure how far ``model`` is from a slice along its orbit; nothing is changed.

    Args:
        model: any model that the group fits.
        gauge: its group.
        slice: a name or a slice.
        near: an element that nearly leads there, such as that of the last measurement. Far from the slice, solving
            from it is several times faster; the result is the same up to the tolerance of the slice.

    Raises:
        SliceError: if the slice is unknown or not reached.
        NonFiniteError: if a parameter is not finite.
    """
    target = get_slice(slice)
    tensors = tensors_for(target, gauge, model)
    if near is not None and _helps(gauge, near) and not isinstance(tensors, Shards):
        element, residual = _from_near(gauge, target, tensors, near), target.residual(gauge, tensors)
    else:
        element, residual = target.measure(gauge, tensors)
        element = agreed(element, tensors)
    squares = log_norms(gauge, element)
    dimension = sum(gauge[name].group.dimension for name in squares)
    total = sum(squares.values())
    return Drift(
        total=total**0.5,
        rms=(total / dimension) ** 0.5 if dimension else 0.0,
        per_symmetry={name: (value / gauge[name].group.dimension) ** 0.5 for name, value in squares.items()},
        residual=float(residual),
        element=element,
    )


def _helps(gauge: GaugeGroup, near: Element) -> bool:
    """Whether there is a start, and it is one of scalings alone."""
    return bool(near.steps) and all(isinstance(gauge[name].group, DiagonalGroup) for name, _ in near.steps)


def _from_near(gauge: GaugeGroup, target: Slice, tensors: Mapping[str, Tensor], near: Element) -> Element:
    """Solve from where ``near`` leads: scalings commute, so that the rest multiplies it."""
    moved = {name: t.detach() if t.element_size() > 2 else t.detach().float() for name, t in tensors.items()}
    start = _composed(gauge, near)
    for name, value in start.items():
        moved.update(gauge[name].act(moved, value))
    rest = target.solve(gauge, moved)
    if not all(isinstance(gauge[name].group, DiagonalGroup) for name, _ in rest.steps):
        return target.solve(gauge, tensors)
    total = dict(start)
    for name, value in rest.steps:
        total[name] = value * total[name].to(value) if name in total else value
    return Element(tuple(total.items()))


def log_norms(gauge: GaugeGroup, element: Element) -> dict[str, float]:
    """Return ‖log g‖² per symmetry (steps of one symmetry composed)."""
    return distances(gauge, Element(()), element)


def distances(gauge: GaugeGroup, first: Element, second: Element) -> dict[str, float]:
    """Return ‖log(g₁⁻¹g₂)‖² per symmetry of positive dimension that occurs in either element."""
    one, two = _composed(gauge, first), _composed(gauge, second)
    names = list(dict.fromkeys((*one, *two)))
    scalings = [name for name in names if isinstance(gauge[name].group, PositiveScaling)]
    others = [name for name in names if name not in set(scalings)]
    squares = [_between_scalings(gauge, scalings, one, two)] if scalings else []
    for name in others:
        group, device = gauge[name].group, (two if name in two else one)[name].device
        identity = group.identity(device=device)
        a, b = (side[name].to(device).double() if name in side else identity for side in (one, two))
        between = _polar_square(a, b) if isinstance(group, GeneralLinear) else group.distance(a, b).square()
        squares.append(between.reshape(1))
    values = torch.cat([s.cpu() for s in squares]).tolist() if squares else []
    found = dict(zip([*scalings, *others], values, strict=True))
    return {name: found[name] for name in names}


def _polar_square(a: Tensor, b: Tensor) -> Tensor:
    """‖log P‖² + ‖log O‖² of the polar factors O·P of a⁻¹b, over all blocks.

    The same as ‖log a⁻¹b‖² where that is symmetric, as on the way to minimal norm, or orthogonal; and defined for every
    invertible matrix, while half of GL(d), such as an exchange of two channels, has no real logarithm.
    """
    u, s, vh = torch.linalg.svd(torch.linalg.solve(a, b))
    angles = torch.linalg.eigvals(u @ vh).angle()
    square: Tensor = s.log().square().sum() + angles.square().sum()
    return square


def _between_scalings(
    gauge: GaugeGroup, names: Sequence[str], one: Mapping[str, Tensor], two: Mapping[str, Tensor]
) -> Tensor:
    """‖log λ₂ − log λ₁‖² of each, all logarithms in one call: most models have nothing but scalings."""
    logs: Tensor | float = 0.0
    for sign, side in ((1.0, two), (-1.0, one)):
        if any(name in side for name in names):
            like = next(iter(side.values()))
            filled = [side[n] if n in side else like.new_ones(gauge[n].group.dimension) for n in names]
            logs = logs + sign * torch.cat(filled).double().log()
    assert isinstance(logs, Tensor)
    parts = torch.split(logs.square(), [gauge[name].group.dimension for name in names])
    return torch.stack([part.sum() for part in parts])


def _composed(gauge: GaugeGroup, element: Element) -> dict[str, Tensor]:
    """One value per symmetry of positive dimension: its steps, multiplied."""
    values: dict[str, Tensor] = {}
    for name, value in element.steps:
        group = gauge[name].group
        if group.dimension:
            values[name] = group.compose(value, values[name]) if name in values else value
    return values
