"""Permutations: units, heads and channels in the order of their size."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from gaugefix.groups import Permutations
from gaugefix.slices.second_moment import coordinate_sums
from gaugefix.symmetry import LinearSymmetry


def order(symmetry: LinearSymmetry, tensors: Mapping[str, Tensor], turning: Collection[str]) -> Tensor:
    """Return the permutation that sorts the coordinates by decreasing size; equal ones keep their order.

    The size is Σ P² over all legs, which no rotation, sign or permutation of another axis changes. Fourth powers are
    added on parameters that nothing rotates: they tell units apart whose norms agree, as those of an orthogonal
    initialisation.

    Args:
        symmetry: one of a permutation group; a coordinate may hold many entries, as a head does.
        tensors: float64 parameters by name.
        turning: parameters that a matrix group moves.
    """
    n = symmetry.group.coordinates
    size = torch.zeros(n, dtype=torch.float64, device=tensors[symmetry.legs[0].parameter].device)
    for leg in symmetry.legs:
        if leg.buffer:
            continue
        square = (tensors[leg.parameter] + leg.offset).square()
        if leg.parameter not in turning:
            square = square + square.square()
        size = size + coordinate_sums(leg, square, n)
    return torch.argsort(size, descending=True, stable=True)


def is_permutation(symmetry: object) -> bool:
    """Whether it permutes."""
    return isinstance(symmetry, LinearSymmetry) and isinstance(symmetry.group, Permutations)
