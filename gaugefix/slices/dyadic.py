"""Dyadic elements: powers of two act on floating-point numbers without any rounding."""

from __future__ import annotations

import torch

from gaugefix.groups import DiagonalGroup
from gaugefix.symmetry import Element, GaugeGroup


def dyadic(gauge: GaugeGroup, element: Element) -> Element:
    """Round the diagonal steps of ``element`` to the nearest powers of two and leave the other steps out.

    The result acts bit-exactly on the function (barring under- and overflow), at any precision.
    """
    steps = []
    for name, value in element.steps:
        group = gauge[name].group
        if isinstance(group, DiagonalGroup):
            rounded = torch.sign(value) * torch.exp2(torch.log2(value.abs()).round())
            steps.append((name, rounded))
    return Element(tuple(steps))
