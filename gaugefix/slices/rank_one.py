"""Newton's step for the balance problem, with the coupling of layers modelled by its rank-one part.

A sweep over single units contracts slowly because whole layers lag behind each other. The coupling S of two layers is
close to rank one, S ≈ r cᵀ/T (row sums, column sums, total), and with that model

    H = diag 2(in + out) + 2 Σ_weights (r cᵀ + c rᵀ)/T,      r, c signed by the powers of their legs,

Newton's equation H δ = out − in is solved by the Woodbury formula, with two unknowns per weight, from sums alone.
What the model leaves out (the fluctuations of S) shrinks about twentyfold per step. Far from the solution, where a
quadratic model is poor, the single-unit solution ¼ log(out/in) corrects it to third order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gaugefix.slices.term import Seat, Side, Term

_QUADRATIC = 0.02
"""Steps up to here need no correction: it is of third order."""
_BEYOND_QUADRATIC = 0.8


@dataclass(eq=False)
class Coupling:
    """Which marginals couple: pairs (term, side, side), laid out as columns of one (units × columns) matrix.

    ``contraction`` is what a step leaves of the distance near the solution: the fluctuations of S around its rank-one
    part, about √2(1/√m + 1/√n) for m × n independent weights; no reliable model (0.9) where legs of two classes lie on
    one axis, as in a depthwise convolution: they couple unit by unit.
    """

    pairs: list[tuple[int, int, int]]
    seats: list[tuple[int, int, int, Seat]]  # column, term, side, seat
    units: int
    contraction: float
    _cache: dict[tuple[str, torch.device], Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, terms: list[Term], units: int) -> Coupling:
        """Collect the pairs of sides of every term."""
        pairs: list[tuple[int, int, int]] = []
        seats: list[tuple[int, int, int, Seat]] = []
        for t, term in enumerate(terms):
            for k in range(len(term.sides)):
                for other in range(k + 1, len(term.sides)):
                    for side in (k, other):
                        seats += [(2 * len(pairs) + (side == other), t, side, s) for s in term.sides[side].seats]
                    pairs.append((t, k, other))
        worst = max((_fluctuation(terms[t].sides[a]) + _fluctuation(terms[t].sides[b]) for t, a, b in pairs), default=0)
        seated = [seat for term in terms for side in term.sides for seat in side.seats]
        faithful = all(term.flat and all(_alone(side) for side in term.sides) for term in terms)
        faithful = faithful and all(abs(seat.leg.power) == 1 for seat in seated)
        return cls(pairs, seats, units, min(worst, 0.9) if faithful else 0.9)

    def basis(self, parts: list[tuple[Tensor, ...]]) -> Tensor:
        """The signed marginals, (columns, units)."""
        like = parts[0][0]
        where, signs = self._places(like)
        pieces = torch.cat([s.leg.collect(parts[t][side], s.size) for _, t, side, s in self.seats])
        flat = like.new_zeros(2 * len(self.pairs) * self.units)
        return flat.index_add_(0, where, pieces.mul_(signs)).view(-1, self.units)

    def swap(self, device: torch.device) -> Tensor:
        """Index that exchanges the two columns of every pair."""
        if ("swap", device) not in self._cache:
            index = torch.arange(2 * len(self.pairs)).reshape(-1, 2).flip(1).reshape(-1)
            self._cache["swap", device] = index.to(device)
        return self._cache["swap", device]

    def _places(self, like: Tensor) -> tuple[Tensor, Tensor]:
        key = (str(like.dtype), like.device)
        if key not in self._cache:
            ranges = [torch.arange(s.size) + column * self.units + s.start for column, _, _, s in self.seats]
            self._cache["where", like.device] = torch.cat(ranges).to(like.device)
            signs = [torch.full((s.size,), float(s.leg.power)) for _, _, _, s in self.seats]
            self._cache[key] = torch.cat(signs).to(like)
        return self._cache["where", like.device], self._cache[key]


def unit_step(ins: Tensor, outs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Newton's step of every unit alone: ``(step, diagonal of H, live units)``.

    Units without any incoming or without any outgoing weight are left alone.
    """
    finfo = torch.finfo(ins.dtype)
    alive = torch.minimum(ins, outs) > finfo.tiny
    diagonal = (ins + outs).mul_(2.0 * (1.0 + 4.0 * finfo.eps)).clamp_min_(finfo.tiny)
    return (outs - ins).div_(diagonal).mul_(alive), diagonal, alive


def newton_step(coupling: Coupling, ins: Tensor, outs: Tensor, parts: list[tuple[Tensor, ...]]) -> Tensor:
    """Return δ, (units,)."""
    target, diagonal, alive = unit_step(ins, outs)
    if not coupling.pairs:
        return torch.where(alive, 0.25 * (outs / ins).log(), 0.0)  # nothing couples: exact
    columns = coupling.basis(parts).mul_(alive)
    swap = coupling.swap(columns.device)
    factor = 2.0 / columns.sum(1).abs_().clamp_min_(torch.finfo(columns.dtype).tiny)
    factor = torch.minimum(factor, factor[swap])  # both columns of a pair sum to the total of their weight
    system = ((columns / diagonal) @ columns.mT)[:, swap].mul_(factor)
    system.diagonal().add_(1.0)
    inner = torch.linalg.solve(system, columns @ target)
    delta: Tensor = target - ((factor * inner)[swap] @ columns).div_(diagonal)
    if float(target.abs().max()) > _QUADRATIC:
        alone = torch.where(alive, 0.25 * (outs / ins).log(), 0.0)
        delta = delta + _BEYOND_QUADRATIC * (alone - target)
    return delta


def _fluctuation(side: Side) -> float:
    return float((2.0 / sum(seat.size for seat in side.seats)) ** 0.5)


def _alone(side: Side) -> bool:
    """Whether no entry of the side belongs to two legs at once."""
    return len(side.seats) == 1 or all((s.leg.index >= 0).sum() < s.leg.index.size for s in side.seats)
