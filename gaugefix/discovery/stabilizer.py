"""What a GL symmetry counts for: the dimension of its orbit, not of the group.

An element with A·P = 0 on all vectors and Qᵀ·A = 0 on all covectors moves nothing. Where both the writers and the
readers of an axis of size n are too few to span it (a linear map that expands, 4 → 6 → 5), such elements form a
stabilizer of dimension (n − rank P)(n − rank Q). Ranks are generic: those of weights in general position. Stabilizers
that several blocks have only together (2 → 6 → 6 → 2) are not subtracted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod

from gaugefix.groups import GeneralLinear
from gaugefix.symmetry import Add, LinearSymmetry, ShiftSymmetry, Symmetry


def without_stabilizers(symmetries: Iterable[Symmetry], shapes: Mapping[str, tuple[int, ...]]) -> list[Symmetry]:
    """Set the ``overlap`` of every GL symmetry to the dimension of its stabilizer."""
    given = list(symmetries)
    shifted = {leg.parameter for s in given if isinstance(s, ShiftSymmetry) for leg in s.legs if isinstance(leg, Add)}
    return [
        replace(s, overlap=_stabilizer(s, shapes, shifted))
        if isinstance(s, LinearSymmetry) and isinstance(s.group, GeneralLinear)
        else s
        for s in given
    ]


def _stabilizer(symmetry: LinearSymmetry, shapes: Mapping[str, tuple[int, ...]], shifted: set[str]) -> int:
    group = symmetry.group
    assert isinstance(group, GeneralLinear)
    counts = [0, 0]
    for leg in symmetry.legs:
        if leg.buffer or leg.parameter in shifted:
            continue  # a bias that shifts freely takes part in no rank
        copies = len(leg.positions(group.n)[1]) // group.batch
        counts[leg.power < 0] += copies * prod(shapes[leg.parameter]) // prod(leg.index.shape)
    return group.batch * max(0, group.n - counts[0]) * max(0, group.n - counts[1])
