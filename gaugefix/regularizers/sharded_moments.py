"""Moments on shards: sums of the rows of each process, and the gradient of its rows.

What a unit sums is complete where its row is, or adds up over the processes (:mod:`gaugefix.slices.sharded_balance`):
one all-reduce of a vector as long as the units. A block of GL sums over pairs of its coordinates. Where those lie along
another axis than the rows, PPᵀ adds up over the processes too; where they are rows, each process sums the blocks that
it has. Only where the cut between processes goes through a block is the parameter gathered, one at a time.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gaugefix.errors import SettingError
from gaugefix.groups import GeneralLinear
from gaugefix.regularizers.block_rows import BlockRows
from gaugefix.regularizers.moments import MomentMap, Moments, Placed, UnitSlopes, moment_map, of_copies, wide_enough
from gaugefix.sharding import Place, Shards, rows_of
from gaugefix.slices.second_moment import add_block_vectors_, add_blocks_, block_vectors
from gaugefix.slices.sharded_balance import ShardedBalance
from gaugefix.slices.term import Term
from gaugefix.symmetry import GaugeGroup, Leg
from gaugefix.symmetry.leg import Index


class ShardedMomentMap(MomentMap):
    """As :class:`MomentMap`, for :class:`Shards`; all processes call it together.

    Args:
        gauge: the group.
    """

    def __init__(self, gauge: GaugeGroup) -> None:
        super().__init__(gauge, ShardedBalance(gauge, waits=False))
        self._moved = [term.parameter for term in self.balance.terms]
        self._moved += [leg.parameter for s in self.blocks for leg in s.legs if not leg.buffer]
        self._cuts: dict[tuple[Any, ...], BlockRows] = {}

    def differentiable(self, tensors: Mapping[str, Tensor]) -> Moments:
        raise SettingError(
            "Expected whole parameters for the value of a term, got shards. Call term.measure(gauge, tensors), or "
            "term.add_gradient_, which need no graph."
        )

    @torch.no_grad()
    def here(self, tensors: Mapping[str, Tensor]) -> Moments:
        shards = self._laid_out(tensors)
        device = next(iter(shards.local.values())).device
        ins = outs = torch.zeros(0, device=device)
        if self.balance.size:
            found = self.balance.here(shards)
            ins, outs = found.ins, found.outs
        return Moments(ins, outs, self._blocks(shards))

    @torch.no_grad()
    def pull_back_(
        self, slopes: Moments, tensors: Mapping[str, Tensor], gradients: Mapping[str, Tensor], strength: float
    ) -> None:
        shards = self._laid_out(tensors)
        # Whether or not it has a gradient: which have one may differ between processes.
        if any(shards.places[name] is None for name in self._moved):
            slopes = _agreed(shards, slopes)  # what several processes hold must not differ by rounding
        super().pull_back_(slopes, shards, gradients, strength)

    # ---- inside -----------------------------------------------------------------------------------------------------
    def _laid_out(self, tensors: Mapping[str, Tensor]) -> Shards:
        assert isinstance(tensors, Shards)
        assert isinstance(self.balance, ShardedBalance)
        self.balance.lay_out(tensors)
        return tensors

    def _blocks(self, shards: Shards) -> tuple[tuple[Tensor, Tensor], ...]:
        """A and B of every block, from what each process can sum."""
        sums: list[tuple[Tensor, Tensor]] = []
        for symmetry in self.blocks:
            group = symmetry.group
            assert isinstance(group, GeneralLinear)
            legs = [leg for leg in symmetry.legs if not leg.buffer]
            like = shards.local[legs[0].parameter]
            dtype = wide_enough(symmetry, shards.local)
            pair = (like.new_zeros(group.shape, dtype=dtype), like.new_zeros(group.shape, dtype=dtype))
            for leg in legs:
                vectors, block = self._to_sum(leg, shards, group.n, dtype)
                if block.size:
                    add_blocks_(pair[0 if leg.power > 0 else 1], vectors @ vectors.mT, block)
            sums.append(pair)
        if not sums:
            return ()
        flat = shards.sum_(torch.cat([m.reshape(-1) for pair in sums for m in pair]))
        parts = iter(torch.split(flat, [m.numel() for pair in sums for m in pair]))
        found = []
        for a, b in sums:
            found.append((next(parts).view(a.shape).to(a.dtype), next(parts).view(b.shape).to(b.dtype)))
        return tuple(found)

    def _pull_back_units_(
        self, slopes: UnitSlopes, tensors: Mapping[str, Tensor], gradients: Mapping[str, Tensor], factor: float
    ) -> None:
        super()._pull_back_units_(slopes, rows_of(tensors), gradients, factor)

    def _weight(self, term: Term, seats: list[Placed], slopes: UnitSlopes) -> Tensor:
        assert isinstance(self.balance, ShardedBalance)
        weight, place = super()._weight(term, seats, slopes), self.balance.shards.places[term.parameter]
        return weight if place is None else place.cut(weight)

    def _pull_back_block_(
        self, gradient: Tensor, leg: Leg, tensors: Mapping[str, Tensor], slope: Tensor, strength: float
    ) -> None:
        assert isinstance(tensors, Shards)
        place = tensors.places[leg.parameter]
        if place is None or 0 not in leg.axes:
            super()._pull_back_block_(gradient, leg, tensors.local, slope, strength)
        elif leg.flat:
            self._rows(leg, place, slope.shape[-1], gradient.device).pull_back_(
                gradient, tensors, slope, 2.0 * strength
            )
        else:
            vectors, block = block_vectors(leg, tensors[leg.parameter], slope.shape[-1], slope.dtype)
            whole = vectors.new_zeros(place.shape)
            add_block_vectors_(leg, whole, of_copies(slope, block) @ vectors, 1.0)
            gradient.add_(place.cut(whole).to(gradient.dtype), alpha=2.0 * strength)

    def _to_sum(self, leg: Leg, shards: Shards, n: int, dtype: torch.dtype) -> tuple[Tensor, Index]:
        """The vectors that this process sums, and their blocks: each on one process, or a part of it on all."""
        place = shards.places[leg.parameter]
        if place is not None and leg.axes == (0,):
            rows = self._rows(leg, place, n, shards.local[leg.parameter].device)
            return rows.to_sum(shards, dtype), rows.summed_blocks
        whole = place is None or 0 in leg.axes
        vectors, block = block_vectors(leg, shards[leg.parameter] if whole else shards.local[leg.parameter], n, dtype)
        return (vectors, block) if shards.leads or not whole else (vectors[:0], block[:0])

    def _rows(self, leg: Leg, place: Place, n: int, device: torch.device) -> BlockRows:
        key = (id(leg), place.mesh, place.start, place.rows, device)
        if key not in self._cuts:
            self._cuts[key] = BlockRows(leg, place, n, device)
        return self._cuts[key]


def moment_map_for(gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> MomentMap:
    """The compiled moment map for these tensors, which may be shards."""
    if not isinstance(tensors, Shards):
        return moment_map(gauge)
    if gauge not in _COMPILED:
        _COMPILED[gauge] = ShardedMomentMap(gauge)
    return _COMPILED[gauge]


_COMPILED: weakref.WeakKeyDictionary[GaugeGroup, ShardedMomentMap] = weakref.WeakKeyDictionary()


def _agreed(shards: Shards, slopes: Moments) -> Moments:
    flat = [slopes.ins, slopes.outs, *(m for pair in slopes.blocks for m in pair)]
    ins, outs, *blocks = shards.agreed(flat)
    return Moments(ins, outs, tuple(zip(blocks[::2], blocks[1::2], strict=True)))
