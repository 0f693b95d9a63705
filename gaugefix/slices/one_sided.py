"""Scales without a counterpart: all legs vectors, or all covectors.

The direction of a weight normalization is one: its scale is free and nothing takes it up. The norm has no minimum along
such a scale but at zero; its canonical value is norm 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gaugefix.groups import DiagonalGroup
from gaugefix.slices.second_moment import coordinate_sums
from gaugefix.symmetry import LinearSymmetry


def is_one_sided(symmetry: object) -> bool:
    """Whether every leg has the same power; running statistics do not count."""
    if not isinstance(symmetry, LinearSymmetry) or not isinstance(symmetry.group, DiagonalGroup):
        return False
    powers = {leg.power for leg in symmetry.legs if not leg.buffer}
    return bool(symmetry.group.dimension) and len(powers) == 1


def normalise(symmetry: LinearSymmetry, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the scales that bring every unit to norm 1; units that are zero stay."""
    n = symmetry.group.coordinates
    squares = torch.zeros(n, dtype=torch.float64, device=tensors[symmetry.legs[0].parameter].device)
    power = 1
    for leg in symmetry.legs:
        if leg.buffer:
            continue
        power = leg.power
        squares = squares + coordinate_sums(leg, (tensors[leg.parameter] + leg.offset).square(), n)
    return torch.where(squares > 0.0, squares.clamp_min(1e-300).pow(-0.5 / power), 1.0)
