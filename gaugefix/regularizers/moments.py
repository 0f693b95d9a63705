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
from gaugefix.slices.minimal_norm import balance_of
from gaugefix.slices.second_moment import add_block_vectors_, block_vectors, second_moments
from gaugefix.slices.term import Side, values
from gaugefix.symmetry import GaugeGroup, Leg, LinearSymmetry


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
    """

    def __init__(self, gauge: GaugeGroup) -> None:
        self.balance = balance_of(gauge)
        linear = [s for s in gauge.applied if isinstance(s, LinearSymmetry) and not s.conditional]
        self.blocks = [s for s in linear if isinstance(s.group, GeneralLinear)]

    def differentiable(self, tensors: Mapping[str, Tensor]) -> Moments:
        """The moments, differentiable by the parameters, at least float32."""
        empty = next(iter(tensors.values())).new_zeros(0, dtype=torch.float32)
        here = self.balance.differentiable(tensors) if self.balance.size else None
        ins, outs = (empty, empty) if here is None else (here.ins, here.outs)
        blocks = (second_moments(s, tensors, dtype=_wide(s, tensors), differentiable=True) for s in self.blocks)
        return Moments(ins, outs, tuple(blocks))

    @torch.no_grad()
    def here(self, tensors: Mapping[str, Tensor]) -> Moments:
        """The moments, in one pass over the parameters."""
        empty = next(iter(tensors.values())).new_zeros(0, dtype=torch.float32)
        here = self.balance.here(tensors) if self.balance.size else None
        ins, outs = (empty, empty) if here is None else (here.ins, here.outs)
        return Moments(ins, outs, tuple(second_moments(s, tensors, dtype=_wide(s, tensors)) for s in self.blocks))

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
        sizes = [n for _, n in self.balance.classes.values()]
        starts = [start for start, _ in self.balance.classes.values()]
        pieces = {
            sign: dict(zip(starts, torch.split(slope, sizes), strict=True))
            for sign, slope in ((True, slopes.ins), (False, slopes.outs))
            if sizes
        }
        plain: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
        for term in self.balance.terms:
            gradient = gradients.get(term.parameter)
            if gradient is None:
                continue
            tensor = values(term, tensors)
            for side in term.sides:
                weight = _weight(side, pieces)
                if gradient.dtype == tensor.dtype == weight.dtype:
                    for items, item in zip(plain, (gradient, tensor.detach(), weight), strict=True):
                        items.append(item)
                else:
                    gradient.add_((tensor * weight).to(gradient.dtype), alpha=2.0 * strength)
        if plain[0]:
            torch._foreach_addcmul_(*plain, value=2.0 * strength)
        for symmetry, (vector, covector) in zip(self.blocks, slopes.blocks, strict=True):
            for leg in symmetry.legs:
                gradient = gradients.get(leg.parameter)
                if gradient is not None and not leg.buffer:
                    slope = vector if leg.power > 0 else covector
                    _add_mixed_(gradient, leg, tensors[leg.parameter], slope, strength)


def moment_map(gauge: GaugeGroup) -> MomentMap:
    """The compiled moment map of a gauge group (cached)."""
    if gauge not in _COMPILED:
        _COMPILED[gauge] = MomentMap(gauge)
    return _COMPILED[gauge]


_COMPILED: weakref.WeakKeyDictionary[GaugeGroup, MomentMap] = weakref.WeakKeyDictionary()


def _wide(symmetry: LinearSymmetry, tensors: Mapping[str, Tensor]) -> torch.dtype:
    wide = torch.float32
    for leg in symmetry.legs:
        wide = torch.promote_types(wide, tensors[leg.parameter].dtype)
    return wide


def _weight(side: Side, pieces: Mapping[bool, Mapping[int, Tensor]]) -> Tensor:
    """Σ |k| φ' laid out over the entries of one side; ``pieces``: φ' of each class, by the sign of the power."""
    total: Tensor | None = None
    for seat in side.seats:
        spread = seat.leg.spread(pieces[seat.leg.power > 0][seat.start], 0.0)
        if abs(seat.leg.power) != 1:
            spread = abs(seat.leg.power) * spread
        total = spread if total is None else total + spread
    assert total is not None
    return total


def _add_mixed_(gradient: Tensor, leg: Leg, tensor: Tensor, slope: Tensor, strength: float) -> None:
    vectors, block = block_vectors(leg, tensor.detach(), slope.shape[-1], slope.dtype)
    if not (block.size == slope.shape[0] and bool((block == np.arange(block.size)).all())):
        slope = slope[torch.from_numpy(block).to(slope.device)]
    add_block_vectors_(leg, gradient, slope @ vectors, 2.0 * strength)
