"""What a canonical form cannot fix: orbits without a point of least norm, and what they touch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gaugefix.groups import ComplexScaling, DiagonalGroup, GeneralLinear
from gaugefix.slices.block import full_rank
from gaugefix.slices.one_sided import is_one_sided
from gaugefix.slices.second_moment import coordinate_sums, second_moments
from gaugefix.symmetry import LinearSymmetry, Symmetry


def unfixed(symmetries: Sequence[Symmetry], tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the names of symmetries whose element minimal norm does not determine at these parameters.

    A mixing with a block without full rank, a scaling or plane with a unit that has weights on one side only.
    """
    return tuple(s.name for s in symmetries if isinstance(s, LinearSymmetry) and _loose(s, tensors))


def _loose(symmetry: LinearSymmetry, tensors: Mapping[str, Tensor]) -> bool:
    group = symmetry.group
    if isinstance(group, GeneralLinear):
        a, b = second_moments(symmetry, tensors)
        return not bool((full_rank(a) & full_rank(b)).all())
    planes = isinstance(group, ComplexScaling)
    if not planes and not (isinstance(group, DiagonalGroup) and group.dimension):
        return False
    if is_one_sided(symmetry):
        return False
    sides = torch.zeros(2, group.coordinates, dtype=torch.float64)
    for leg in symmetry.legs:
        if not leg.buffer:
            square = (tensors[leg.parameter] + leg.offset).square()
            sides[0 if leg.power > 0 else 1] += coordinate_sums(leg, square, group.coordinates).cpu()
    sides = sides.reshape(2, -1, 2).sum(2) if planes else sides
    return bool(((sides[0] == 0.0) != (sides[1] == 0.0)).any())
