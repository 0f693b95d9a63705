"""How the log-scales of the balance problem lie over the entries of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gaugefix.groups import ComplexScaling, DiagonalGroup, PositiveScaling
from gaugefix.slices.term import Seat, Side, Term
from gaugefix.symmetry import LinearSymmetry, Symmetry

Where = tuple[int, int, Seat]
Level = list[tuple[int, list[Where]]]


def as_scaling(symmetry: Symmetry) -> LinearSymmetry | None:
    """The symmetry as a diagonal scaling, if the norm knows no more of it.

    A complex scaling r e^{iφ} changes the norm of its plane by r alone: one positive scale for two coordinates, and the
    phase stays free.
    """
    if not isinstance(symmetry, LinearSymmetry):
        return None
    group = symmetry.group
    if isinstance(group, ComplexScaling):
        legs = tuple(replace(leg, index=np.where(leg.index < 0, -1, leg.index // 2)) for leg in symmetry.legs)
        return replace(symmetry, acting=PositiveScaling(group.batch), legs=legs, exact_part=())
    return symmetry if isinstance(group, DiagonalGroup) and group.dimension else None


def joined(term: Term, pieces: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Marginals of a parameter from those of its pieces along axis 0."""
    return tuple(
        torch.cat(parts) if side.axes[0] == 0 else torch.stack(parts).sum(0)
        for side, parts in zip(term.sides, zip(*pieces, strict=True), strict=True)
    )


def weight_of(side: Side, factors: dict[int, Tensor]) -> Tensor:
    """exp(2 Σ p u) laid out over the entries of one side; ``factors`` holds exp(2pu) for all units, by power p."""
    total: Tensor | None = None
    for seat in side.seats:
        if seat.leg.power not in factors:
            factors[seat.leg.power] = factors[1].pow(seat.leg.power)
        spread = seat.leg.spread(factors[seat.leg.power][seat.start : seat.start + seat.size], 1.0)
        total = spread if total is None else total * spread
    assert total is not None
    return total


def layout_of(terms: list[Term], classes: Mapping[str, tuple[int, int]]) -> tuple[list[Level], list[Level]]:
    """Where in and out of every class come from: levels of one leg per class, for one ``cat`` each.

    There are as many levels as every class has legs; what a class has beyond that is added to its first.
    """
    result: list[list[Level]] = []
    for sign in (1, -1):
        legs: dict[int, list[Where]] = {start: [] for start, _ in classes.values()}
        for t, term in enumerate(terms):
            for k, side in enumerate(term.sides):
                for seat in side.seats:
                    if seat.leg.power * sign > 0:
                        legs[seat.start].append((t, k, seat))
        depth = max(1, min((len(found) for found in legs.values()), default=0))
        result.append(
            [
                [(n, legs[start][d : d + 1] + (legs[start][depth:] if d == 0 else [])) for start, n in classes.values()]
                for d in range(depth)
            ]
        )
    return result[0], result[1]


def piece_of(parts: list[tuple[Tensor, ...]], where: list[Where]) -> Tensor:
    """What some legs (one or more) add to in or out of their class, (n,)."""
    total: Tensor | None = None
    for term, side, seat in where:
        piece = seat.leg.collect(parts[term][side], seat.size)
        piece = piece if abs(seat.leg.power) == 1 else abs(seat.leg.power) * piece
        total = piece if total is None else total + piece
    assert total is not None
    return total
