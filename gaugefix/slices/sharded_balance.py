"""The balance problem on shards: every process squares and sums its own rows.

All that Newton's step needs are sums per unit, so that one all-reduce of a short vector makes the moments of the whole
model, at every point u: sums over a row are complete where the row is, and sums over a column add up over the
processes. No weight is gathered.
"""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gaugefix.groups import DiagonalGroup
from gaugefix.sharding import Shards, rows_of
from gaugefix.slices.balance import Balance
from gaugefix.slices.term import Moments, Squares, Term
from gaugefix.symmetry import LinearSymmetry


@dataclass(eq=False)
class ShardedBalance(Balance):
    """As :class:`Balance`, for the rows that :meth:`lay_out` was told of.

    Moments and log-scales lie on the CPU, where every process computes the same from the same sums.

    Args:
        waits: whether moments are brought to the CPU; on an accelerator that waits for it.
    """

    waits: bool = field(default=True, kw_only=True)
    _shards: weakref.ref[Shards] | None = field(default=None, init=False, repr=False)

    def lay_out(self, shards: Shards) -> None:
        """Take over which rows are here; the caller keeps the tensors alive, not this."""
        self._shards = weakref.ref(shards)

    @property
    def shards(self) -> Shards:
        """What was laid out last."""
        shards = None if self._shards is None else self._shards()
        assert shards is not None
        return shards

    def here(self, tensors: Mapping[str, Tensor]) -> Moments:
        return super().here(rows_of(tensors))

    def squares(self, tensors: Mapping[str, Tensor], now: Moments | None = None) -> list[Squares]:
        return super().squares(rows_of(tensors))  # of the rows here: the moments are those of whole parameters

    def replace_(self, squares: list[Squares], tensors: Mapping[str, Tensor]) -> None:
        super().replace_(squares, rows_of(tensors))

    def _collect(self, parts: list[tuple[Tensor, ...]]) -> Moments:
        return super()._collect(self._summed(parts))

    def _summed(self, parts: list[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
        """Marginals of the whole parameters from those of the rows here: all in one vector, and one all-reduce."""
        shapes, cuts = [], []
        for term, sides in zip(self.terms, parts, strict=True):
            place = self.shards.places[term.parameter]
            for side, part in zip(term.sides, sides, strict=True):
                along = place if 0 in side.axes else None
                shapes.append(part.shape if along is None else (along.shape[0], *part.shape[1:]))
                cuts.append((part, along, place is not None or self.shards.leads))
        sizes = [math.prod(shape) for shape in shapes]
        dtype = functools.reduce(torch.promote_types, {part.dtype for part, _, _ in cuts})
        flat = cuts[0][0].new_zeros(sum(sizes), dtype=dtype)
        wholes = [whole.view(shape) for whole, shape in zip(torch.split(flat, sizes), shapes, strict=True)]
        counted = [
            (whole if along is None else along.cut(whole), part)
            for whole, (part, along, counts) in zip(wholes, cuts, strict=True)
            if counts
        ]
        if counted:
            torch._foreach_copy_([whole for whole, _ in counted], [part for _, part in counted])
        self.shards.sum_(flat)
        if self.waits and flat.device.type != "cpu":
            moved = torch.split(flat.cpu(), sizes)
            wholes = [whole.view(shape) for whole, shape in zip(moved, shapes, strict=True)]
        rest = iter(wholes)
        return [tuple(next(rest) for _ in sides) for sides in parts]

    def _weights(self, term: Term, factors: dict[int, Tensor]) -> list[Tensor]:
        weights = [weight.to(self.shards.local[term.parameter].device) for weight in super()._weights(term, factors)]
        place = self.shards.places[term.parameter]
        if place is None:
            return weights
        return [place.cut(w) if 0 in side.axes else w for side, w in zip(term.sides, weights, strict=True)]


def scale_rows_(shards: Shards, symmetry: LinearSymmetry, scale: Tensor) -> None:
    """Act with a diagonal element on the rows here, in place."""
    group = symmetry.group
    assert isinstance(group, DiagonalGroup)
    for leg in symmetry.legs:
        if leg.parameter in shards:
            shards.scale(leg.parameter, leg.spread(group.factor(scale, leg.power), 1.0), leg.offset)
