"""The moments of a gauge group: sums of squares on both sides of every unit and block, and their pull-back.

A unit i that is scaled has in_i = Σ_vector legs ‖P_i‖² and out_i = Σ_covector legs ‖P_i‖² (a leg of power k counts |k|
times); a block of GL(n) has A = Σ_vectors PPᵀ and B = Σ_covectors PPᵀ; for a rotary plane both coordinates count as one
unit. For a function φ of them

    ∂φ/∂P_e = 2 P_e Σ_legs |k| φ'_i(e)   on scaled legs,      ∂φ/∂P = 2 φ'_A P  or  2 φ'_B P   on legs of a block,

so that no graph over parameters is built: φ' lives on few numbers.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gaugefix.groups import GeneralLinear
from gaugefix.slices.balance import Balance
from gaugefix.slices.minimal_norm import balance_of
from gaugefix.slices.second_moment import add_block_vectors_, block_vectors, second_moments
from gaugefix.slices.term import Seat, Term, values
from gaugefix.symmetry import GaugeGroup, Leg, LinearSymmetry
from gaugefix.symmetry.leg import Index

UnitSlopes = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
"""φ' by in and by out, class after class."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments, or derivatives by them.

    Args:
        ins: (units,).
        outs: (units,).
        blocks: for each symmetry of GL(n), A and B, (batch, n, n), symmetric.
    """

    ins: Tensor
    outs: Tensor
    blocks: tuple[tuple[Tensor, Tensor], ...]


class MomentMap:
    """Where the moments of a gauge group come from, compiled once.

    Args:
        gauge: the group.
        balance: where the moments of its units come from, if it is not the ordinary problem.
    """

    def __init__(self, gauge: GaugeGroup, balance: Balance | None = None) -> None:
        self.balance = balance_of(gauge) if balance is None else balance
        linear = [s for s in gauge.applied if isinstance(s, LinearSymmetry) and not s.conditional]
        self.blocks = [s for s in linear if isinstance(s.group, GeneralLinear)]
        self._sizes = [n for _, n in self.balance.classes.values()]
        place = {start: k for k, (start, _) in enumerate(self.balance.classes.values())}
        self._plan = [(t, [[Placed(s, place) for s in side.seats] for side in t.sides]) for t in self.balance.terms]

    def differentiable(self, tensors: Mapping[str, Tensor]) -> Moments:
        """The moments, differentiable by the parameters, at least float32."""
        empty = next(iter(tensors.values())).new_zeros(0, dtype=torch.float32)
        here = self.balance.differentiable(tensors) if self.balance.size else None
        ins, outs = (empty, empty) if here is None else (here.ins, here.outs)
        blocks = (second_moments(s, tensors, dtype=wide_enough(s, tensors), differentiable=True) for s in self.blocks)
        return Moments(ins, outs, tuple(blocks))

    @torch.no_grad()
    def here(self, tensors: Mapping[str, Tensor]) -> Moments:
        """The moments, in one pass over the parameters."""
        empty = next(iter(tensors.values())).new_zeros(0, dtype=torch.float32)
        here = self.balance.here(tensors) if self.balance.size else None
        ins, outs = (empty, empty) if here is None else (here.ins, here.outs)
        return Moments(ins, outs, tuple(second_moments(s, tensors, dtype=wide_enough(s, tensors)) for s in self.blocks))

    @torch.no_grad()
    def pull_back_(
        self, slopes: Moments, tensors: Mapping[str, Tensor], gradients: Mapping[str, Tensor], strength: float
    ) -> None:
        """Add strength · ∂φ/∂θ to ``gradients``, in place.

        Args:
            slopes: φ' by the moments.
            tensors: parameters by name.
            gradients: of the parameters that train, by name.
            strength: the factor.
        """
        if self.balance.size:
            ins, outs = torch.split(slopes.ins, self._sizes), torch.split(slopes.outs, self._sizes)
            self._pull_back_units_((ins, outs), tensors, gradients, 2.0 * strength)
        for symmetry, (vector, covector) in zip(self.blocks, slopes.blocks, strict=True):
            for leg in symmetry.legs:
                gradient = gradients.get(leg.parameter)
                if gradient is not None and not leg.buffer:
                    slope = vector if leg.power > 0 else covector
                    self._pull_back_block_(gradient, leg, tensors, slope, strength)

    def _pull_back_units_(
        self, slopes: UnitSlopes, tensors: Mapping[str, Tensor], gradients: Mapping[str, Tensor], factor: float
    ) -> None:
        """Add ``factor`` · P · Σ |k| φ', all plain parameters in one call."""
        plain: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
        for term, sides in self._plan:
            gradient = gradients.get(term.parameter)
            if gradient is None:
                continue
            tensor = values(term, tensors)
            for seats in sides:
                weight = self._weight(term, seats, slopes)
                if gradient.dtype == tensor.dtype == weight.dtype:
                    plain[0].append(gradient)
                    plain[1].append(tensor)
                    plain[2].append(weight)
                else:
                    gradient.add_((tensor * weight).to(gradient.dtype), alpha=factor)
        if plain[0]:
            torch._foreach_addcmul_(*plain, value=factor)

    def _weight(self, term: Term, seats: list[Placed], slopes: UnitSlopes) -> Tensor:
        """Σ |k| φ' over the legs of one side of a parameter."""
        total = seats[0].spread(slopes)
        for seat in seats[1:]:
            total = total + seat.spread(slopes)
        return total

    def _pull_back_block_(
        self, gradient: Tensor, leg: Leg, tensors: Mapping[str, Tensor], slope: Tensor, strength: float
    ) -> None:
        """Add 2 · strength · φ'P to the entries of one leg of a block."""
        vectors, block = block_vectors(leg, tensors[leg.parameter].detach(), slope.shape[-1], slope.dtype)
        add_block_vectors_(leg, gradient, of_copies(slope, block) @ vectors, 2.0 * strength)


def moment_map(gauge: GaugeGroup) -> MomentMap:
    """The compiled moment map of a gauge group (cached)."""
    if gauge not in _COMPILED:
        _COMPILED[gauge] = MomentMap(gauge)
    return _COMPILED[gauge]


_COMPILED: weakref.WeakKeyDictionary[GaugeGroup, MomentMap] = weakref.WeakKeyDictionary()


def wide_enough(symmetry: LinearSymmetry, tensors: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype for the moments of a block: that of its parameters, at least float32."""
    wide = torch.float32
    for leg in symmetry.legs:
        wide = torch.promote_types(wide, tensors[leg.parameter].dtype)
    return wide


class Placed:
    """Where one leg of a parameter finds its φ', and how that lies over the entries."""

    def __init__(self, seat: Seat, place: Mapping[int, int]) -> None:
        self.leg = seat.leg
        self.side, self.place = 0 if seat.leg.power > 0 else 1, place[seat.start]
        self.times = abs(seat.leg.power)
        self.shape = tuple(seat.leg.index.shape) if seat.leg.covers(seat.size) else None

    def spread(self, slopes: UnitSlopes) -> Tensor:
        """|k| φ' over the entries."""
        slope = slopes[self.side][self.place]
        laid = self.leg.spread(slope, 0.0) if self.shape is None else slope.view(self.shape)
        return laid if self.times == 1 else self.times * laid


def of_copies(slope: Tensor, block: Index) -> Tensor:
    """φ' of the block of every copy, (copies, n, n)."""
    if block.size == slope.shape[0] and bool((block == np.arange(block.size)).all()):
        return slope
    return slope[torch.from_numpy(block).to(slope.device)]
