"""Newton's step for the balance problem, with the coupling of layers modelled by its rank-one part.

A sweep over single units contracts slowly because whole layers lag behind each other. The coupling S of two layers is
close to rank one, S ≈ r cᵀ/T (row sums, column sums, total), and with that model

    H = diag 2(in + out) + 2 Σ_weights (r cᵀ + c rᵀ)/T,      r, c signed by the powers of their legs,

Newton's equation H δ = out − in is solved by the Woodbury formula, with two unknowns per weight, from sums alone.
What the model leaves out (the fluctuations of S) shrinks about twentyfold per step. Far from the solution, where a
quadratic model is poor, the single-unit solution ¼ log(out/in) corrects it to third order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gaugefix.slices.layout import Where, piece_of

if TYPE_CHECKING:
    from gaugefix.slices.term import Side, Term

_QUADRATIC = 0.02
"""Steps up to here need no correction: it is of third order."""
_BEYOND_QUADRATIC = 0.8


@dataclass(eq=False)
class Coupling:
    """Which marginals couple: two columns (r, c) for each pair of sides, as rows of one (columns × units) matrix.

    ``contraction`` is what a step leaves of the distance near the solution: the fluctuations of S around its rank-one
    part, about √2(1/√m + 1/√n) for m × n independent weights; no reliable model (0.9) where legs of two classes lie on
    one axis, as in a depthwise convolution: they couple unit by unit.

    Args:
        places: what lies where: the column, the first unit, how many, and the legs that add up there.
        signs: of a column, where all its legs have one sign; 0 where they differ.
        units: number of units.
        contraction: see above.
    """

    places: list[tuple[int, int, int, list[Where]]]
    signs: list[int]
    units: int
    contraction: float
    _kept: dict[tuple[torch.dtype, torch.device], tuple[Tensor, list[Tensor], Tensor | None, Tensor]] = field(
        default_factory=dict, repr=False
    )

    @classmethod
    def of(cls, terms: list[Term], units: int) -> Coupling:
        """Collect the pairs of sides of every term."""
        columns: list[tuple[int, int]] = []
        for t, term in enumerate(terms):
            for k in range(len(term.sides)):
                for other in range(k + 1, len(term.sides)):
                    columns += [(t, k), (t, other)]
        places: dict[tuple[int, int], tuple[int, int, int, list[Where]]] = {}
        for column, (t, k) in enumerate(columns):
            for seat in terms[t].sides[k].seats:
                place = places.setdefault((column, seat.start), (column, seat.start, seat.size, []))
                place[-1].append((t, k, seat))
        powers = [{seat.leg.power > 0 for seat in terms[t].sides[k].seats} for t, k in columns]
        signs = [0 if len(found) > 1 else 1 if True in found else -1 for found in powers]
        noise = [_fluctuation(terms[t].sides[k]) for t, k in columns]
        worst = max(map(sum, zip(noise[::2], noise[1::2], strict=True)), default=0.0)
        seated = [seat for term in terms for side in term.sides for seat in side.seats]
        faithful = all(term.flat and all(_alone(side) for side in term.sides) for term in terms)
        faithful = faithful and all(abs(seat.leg.power) == 1 for seat in seated)
        return cls(list(places.values()), signs, units, min(worst, 0.9) if faithful else 0.9)

    def basis(self, parts: list[tuple[Tensor, ...]]) -> tuple[Tensor, Tensor]:
        """The marginals, (columns, units), valid until the next call, and the signs of the pairs, (columns / 2,).

        A column of legs of both signs is signed itself, and +1.
        """
        key = (parts[0][0].dtype, parts[0][0].device)
        if key not in self._kept:
            self._kept[key] = (*self._laid_out(parts[0][0]), *self._signs(parts[0][0]))
        matrix, views, mixed, pairs = self._kept[key]
        torch._foreach_copy_(views, [piece_of(parts, where) for _, _, _, where in self.places])
        return matrix if mixed is None else matrix * mixed, pairs

    def _laid_out(self, like: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Zeros, and where the marginals go."""
        matrix = like.new_zeros(len(self.signs), self.units)
        return matrix, [matrix[column, start : start + size] for column, start, size, _ in self.places]

    def _signs(self, like: Tensor) -> tuple[Tensor | None, Tensor]:
        pairs = like.new_tensor([(a or 1) * (b or 1) for a, b in zip(self.signs[::2], self.signs[1::2], strict=True)])
        if all(self.signs):
            return None, pairs
        matrix, views = self._laid_out(like)
        for view, (column, _, _, where) in zip(views, self.places, strict=True):
            view.fill_(1.0 if self.signs[column] or where[0][2].leg.power > 0 else -1.0)
        return matrix, pairs


def unit_step(ins: Tensor, outs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Newton's step of every unit alone: ``(step, diagonal of H, live units)``.

    Units without any incoming or without any outgoing weight are left alone: their diagonal is infinite. The step is
    NaN where a sum is not finite.
    """
    finfo = torch.finfo(ins.dtype)
    alive = torch.minimum(ins, outs) > finfo.tiny
    diagonal = torch.where(alive, (ins + outs).mul_(2.0 * (1.0 + 4.0 * finfo.eps)), math.inf)
    return (outs - ins).div_(diagonal), diagonal, alive


def newton_step(coupling: Coupling, ins: Tensor, outs: Tensor, parts: list[tuple[Tensor, ...]]) -> Tensor:
    """Return δ, (units,)."""
    target, diagonal, alive = unit_step(ins, outs)
    if not coupling.signs:
        return torch.where(alive, 0.25 * (outs / ins).log(), target)  # nothing couples: exact
    columns, signs = coupling.basis(parts)
    # With H = D + CᵀFC: H⁻¹ = D⁻¹ − D⁻¹Cᵀ(F⁻¹ + CD⁻¹Cᵀ)⁻¹CD⁻¹. Both columns of a pair sum to the total T of their
    # weight, and F⁻¹ has ±T/2 beside the diagonal.
    halves = columns.sum(1).abs_().view(-1, 2).amax(1).clamp_min_(torch.finfo(columns.dtype).tiny).mul_(0.5).mul_(signs)
    system = columns @ (columns / diagonal).mT
    n = len(system)
    flat = system.view(-1)
    flat[1 :: 2 * (n + 1)].add_(halves)
    flat[n :: 2 * (n + 1)].add_(halves)
    inner = torch.linalg.solve_ex(system, columns @ target)[0]
    delta: Tensor = target - (inner @ columns).div_(diagonal)
    if float(target.abs().max()) > _QUADRATIC:
        alone = torch.where(alive, 0.25 * (outs / ins).log(), 0.0)
        delta = delta + _BEYOND_QUADRATIC * (alone - target)
    return delta


def _fluctuation(side: Side) -> float:
    return float((2.0 / sum(seat.size for seat in side.seats)) ** 0.5)


def _alone(side: Side) -> bool:
    """Whether no entry of the side belongs to two legs at once."""
    return len(side.seats) == 1 or all((s.leg.index >= 0).sum() < s.leg.index.size for s in side.seats)
