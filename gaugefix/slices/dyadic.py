"""Dyadic elements: powers of two act on floating-point numbers without any rounding."""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from gaugefix.groups import DiagonalGroup
from gaugefix.symmetry import Element, GaugeGroup

_PARTS: weakref.WeakKeyDictionary[GaugeGroup, GaugeGroup] = weakref.WeakKeyDictionary()


def diagonal_part(gauge: GaugeGroup) -> GaugeGroup:
    """Return the subgroup of the diagonal symmetries (cached): the one that can act bit-exactly."""
    if all(isinstance(s.group, DiagonalGroup) for s in gauge.applied if s.group.dimension):
        return gauge
    if gauge not in _PARTS:
        _PARTS[gauge] = gauge.select(lambda s: isinstance(s.group, DiagonalGroup))
    return _PARTS[gauge]


def dyadic(gauge: GaugeGroup, element: Element) -> Element:
    """Round the diagonal part of ``element`` to the nearest powers of two and leave the other steps out.

    The result acts bit-exactly on the function (barring under- and overflow), at any precision.
    """
    factors: dict[str, Tensor] = {}
    for name, value in element.steps:
        if isinstance(gauge[name].group, DiagonalGroup):
            factors[name] = value * factors[name] if name in factors else value
    rounded = {name: torch.sign(v) * torch.exp2(torch.log2(v.abs()).round()) for name, v in factors.items()}
    return Element(tuple(rounded.items()))
