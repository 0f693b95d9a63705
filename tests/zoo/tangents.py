"""Directions in which a gauge group moves the parameters of a small model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gaugefix.symmetry import Element, GaugeGroup

_STEP = 1e-6


def moved(gauge: GaugeGroup, state: Mapping[str, Tensor], element: Element) -> dict[str, Tensor]:
    """The displacement of every parameter that an element moves."""
    tensors = {name: state[name] for name in gauge.shapes}
    changed: dict[str, Tensor] = {}
    for name, value in element.steps:
        update = gauge[name].act(tensors, value)
        tensors.update(update)
        changed.update(update)
    return {name: value - state[name] for name, value in changed.items() if not torch.equal(value, state[name])}


def flat(state: Mapping[str, Tensor], displacement: Mapping[str, Tensor]) -> Tensor:
    """One vector over all of ``state``."""
    return torch.cat([displacement.get(name, torch.zeros_like(t)).reshape(-1) for name, t in state.items()])


def tangents(gauge: GaugeGroup, state: Mapping[str, Tensor], spare: int = 3) -> Tensor:
    """(directions, parameters): more random ones for every symmetry than it has dimensions, of unit length.

    Float64, by small elements, so that they are exact up to about 1e-6.
    """
    rows = []
    most = max(symmetry.dimension for symmetry in gauge.applied) + spare
    for k in range(most):
        for name, value in gauge.random(_STEP, seed=1000 + k, conditional=True).steps:
            if value.is_floating_point() and k < gauge[name].dimension + spare:
                row = flat(state, moved(gauge, state, Element(((name, value),))))
                rows.append(row / row.norm())
    return torch.stack(rows)
