"""The fast path: multiply everything by the factors of diagonal steps, in a few fused calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from gaugefix.groups import DiagonalGroup
from gaugefix.sharding import factor_here, is_dtensor, rows_here
from gaugefix.symmetry import GRADIENT, RATIO, Leg, LinearSymmetry, Symmetry
from gaugefix.transport.attachments import Attached


def is_plain_scaling(symmetry: Symmetry) -> bool:
    """Whether a symmetry acts by factors alone (a diagonal group, no offset)."""
    return (
        isinstance(symmetry, LinearSymmetry)
        and isinstance(symmetry.group, DiagonalGroup)
        and not any(leg.offset for leg in symmetry.legs)
    )


def scale_(everything: Iterable[Attached], steps: Sequence[tuple[Symmetry, Tensor]]) -> None:
    """Multiply every tensor by λ^(power·law) along each of its legs (by the sign of that, where the law is RATIO).

    All λ lie in one flat vector, so that every power is computed once for the whole model.
    """
    legs: dict[str, list[tuple[int, Leg]]] = {}
    for k, (symmetry, _) in enumerate(steps):
        assert isinstance(symmetry, LinearSymmetry)
        for leg in symmetry.legs:
            legs.setdefault(leg.parameter, []).append((k, leg))
    if not legs:
        return
    factors = _Factors([value for _, value in steps])
    rounds: list[tuple[list[Tensor], list[Tensor]]] = []
    for item in everything:
        for depth, (k, leg) in enumerate(legs.get(item.parameter, ())):
            if depth == len(rounds):
                rounds.append(([], []))
            target, factor = item.tensor, factors.of(k, leg, item)
            if is_dtensor(target):
                target, factor = rows_here(target), factor_here(target, factor)
            rounds[depth][0].append(target)
            rounds[depth][1].append(factor)
    for targets, multipliers in rounds:
        torch._foreach_mul_(targets, multipliers)


class _Factors:
    """Powers of all λ at once, laid out over legs on demand."""

    def __init__(self, values: Sequence[Tensor]) -> None:
        self.flat = torch.cat([value.reshape(-1) for value in values])
        self.sizes = [value.numel() for value in values]
        self.powers: dict[object, tuple[Tensor, ...]] = {}
        self.spread: dict[object, Tensor] = {}

    def of(self, k: int, leg: Leg, item: Attached) -> Tensor:
        # A factor in half precision would add its own rounding error, the same for a whole row.
        dtype = item.tensor.dtype if item.tensor.dtype == torch.float64 else torch.float32
        key = (leg.power * (GRADIENT if item.law == RATIO else item.law), item.law == RATIO, dtype, item.tensor.device)
        place = (key, k, id(leg))  # k: one symmetry may act in several steps
        if place not in self.spread:
            if key not in self.powers:
                power = self.flat if key[0] == 1 else self.flat.pow(key[0])
                power = power.sign() if key[1] else power
                self.powers[key] = torch.split(power.to(item.tensor.device, dtype), self.sizes)
            self.spread[place] = leg.spread(self.powers[key][k], 1.0)
        return self.spread[place]
