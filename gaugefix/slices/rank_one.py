"""Newton's step for the balance problem, with the coupling of layers modelled by its rank-one part.

A sweep over single units contracts slowly because whole layers lag behind each other. The coupling S of two layers is
close to rank one, S ≈ r cᵀ/T (row sums, column sums, total), and with that model

    H = diag 2(in + out) + 2 Σ_weights (r cᵀ + c rᵀ)/T,      r, c signed by the powers of their legs,

Newton's equation H δ = out − in is solved by the Woodbury formula, with two unknowns per weight, from sums alone.
What the model leaves out (the fluctuations of S) shrinks about twentyfold per step. Far from the solution, where a
quadratic model is poor, the single-unit solution ¼ log(out/in) corrects it to third order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gaugefix.slices.balance import Seat, Side, Term

_BEYOND_QUADRATIC = 0.8


@dataclass(eq=False)
class Coupling:
    """Which marginals couple: pairs (term, side, side), laid out as columns of one (units × columns) matrix.

    ``faithful`` says whether the rank-one model describes all coupling (legs of two classes on one axis, as in a
    depthwise convolution, couple unit by unit, which it does not see).
    """

    pairs: list[tuple[int, int, int]]
    seats: list[tuple[int, int, int, Seat]]  # column, term, side, seat
    units: int
    faithful: bool

    @classmethod
    def of(cls, terms: list[Term], units: int) -> Coupling:
        """Collect the pairs of sides of every term."""
        pairs, seats = [], []
        for t, term in enumerate(terms):
            for k in range(len(term.sides)):
                for other in range(k + 1, len(term.sides)):
                    for side in (k, other):
                        seats += [(2 * len(pairs) + (side == other), t, side, s) for s in term.sides[side].seats]
                    pairs.append((t, k, other))
        faithful = all(term.flat and all(_alone(side) for side in term.sides) for term in terms)
        return cls(pairs, seats, units, faithful)

    def basis(self, parts: list[tuple[Tensor, ...]]) -> Tensor:
        """The signed marginals, (columns, units)."""
        like = parts[0][0]
        flat = like.new_zeros(2 * len(self.pairs) * self.units)
        pieces = [s.leg.power * s.leg.collect(parts[t][side], s.size) for _, t, side, s in self.seats]
        flat.index_add_(0, self._index(like.device), torch.cat(pieces))
        return flat.reshape(-1, self.units)

    def _index(self, device: torch.device) -> Tensor:
        if not hasattr(self, "_where") or self._where.device != device:
            ranges = [torch.arange(s.size) + column * self.units + s.start for column, _, _, s in self.seats]
            self._where = torch.cat(ranges).to(device)
        return self._where


def newton_step(coupling: Coupling, ins: Tensor, outs: Tensor, parts: list[tuple[Tensor, ...]]) -> Tensor:
    """Return δ, (units,); units without any incoming or without any outgoing weight are left alone."""
    tiny = torch.finfo(ins.dtype).tiny
    alive = (ins > tiny) & (outs > tiny)
    eps = 4 * torch.finfo(ins.dtype).eps
    diagonal = torch.where(alive, 2.0 * (1.0 + eps) * (ins + outs), 1.0)
    target = torch.where(alive, (outs - ins) / diagonal, 0.0)
    alone = torch.where(alive, 0.25 * (outs / ins).log(), 0.0)
    delta = target
    if coupling.pairs:
        columns = coupling.basis(parts) * alive
        scaled = columns / diagonal
        swapped = columns.reshape(-1, 2, coupling.units).flip(1).reshape(-1, coupling.units)
        totals = torch.stack([parts[t][side].sum() for t, side, _ in coupling.pairs]).clamp_min(tiny)
        factor = (2.0 / totals).repeat_interleave(2)
        system = (scaled @ swapped.mT) * factor
        system.diagonal().add_(1.0)
        inner = torch.linalg.solve(system, columns @ target)
        delta = target - (factor * inner) @ swapped / diagonal
    return delta + _BEYOND_QUADRATIC * (alone - target)


def _alone(side: Side) -> bool:
    """Whether no entry of the side belongs to two legs at once."""
    return len(side.seats) == 1 or all((s.leg.index >= 0).sum() < s.leg.index.size for s in side.seats)
