"""The balance problem: minimise the norm over all diagonal groups at once.

With log-scales u, the squared norm of the parameters is a sum of exponentials, convex in u:

    Φ(u) = ½ Σ_parameters Σ_entries P_e² exp(2 Σ_legs p_leg u[index_leg(e)])

Per unit, in_i is the weighted sum over its vector legs and out_i over its covector legs; ∂Φ/∂u_i = in_i − out_i, and a
single unit alone is balanced by u_i = ¼ log(out_i/in_i). Neighbouring layers couple through the squares
S_ij = Σ W_ij² of the weights between them (:mod:`gaugefix.slices.rank_one` solves Newton's equation for that).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gaugefix.groups import ComplexScaling
from gaugefix.sharding import subset, widened
from gaugefix.slices.base import require_finite
from gaugefix.slices.layout import as_scaling, joined, layout_of, piece_of, weight_of
from gaugefix.slices.rank_one import Coupling, newton_step
from gaugefix.slices.term import Moments, Seat, Side, Squares, Term, marginals, onto, reduced, sums_of_rows, values
from gaugefix.symmetry import GaugeGroup, LinearSymmetry

_SCRATCH = 2**22
"""Entries that are squared at once: larger parameters go in pieces, so that the buffer stays small."""


@dataclass(eq=False)
class Balance:
    """The balance problem of a gauge group, compiled once; ``u`` holds all log-scales, class after class."""

    gauge: GaugeGroup
    classes: dict[str, tuple[int, int]] = field(default_factory=dict)
    symmetries: dict[str, LinearSymmetry] = field(default_factory=dict)
    terms: list[Term] = field(default_factory=list)
    size: int = 0
    _scratch: dict[tuple[Any, ...], Tensor] = field(default_factory=dict, repr=False)
    _vectors: list[int] = field(default_factory=list, repr=False)
    _planes: set[str] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        owned: dict[str, list[Seat]] = {}
        for given in self.gauge.applied:
            symmetry = as_scaling(given)
            if symmetry is None:
                continue
            n = symmetry.group.coordinates
            self.symmetries[symmetry.name] = symmetry
            if isinstance(given.group, ComplexScaling):
                self._planes.add(symmetry.name)
            self.classes[symmetry.name] = (self.size, n)
            for leg in symmetry.legs:
                if not leg.buffer:
                    owned.setdefault(leg.parameter, []).append(Seat(leg, self.size, n))
            self.size += n
        for name, seats in owned.items():
            by_axes: dict[tuple[int, ...], list[Seat]] = {}
            for seat in seats:
                by_axes.setdefault(seat.leg.axes, []).append(seat)
            sides = tuple(Side(axes, tuple(found)) for axes, found in sorted(by_axes.items()))
            flat = all(seat.leg.flat for seat in seats) and len(sides) <= 2
            self.terms.append(Term(name, sides, flat, seats[0].leg.offset))
        self._vectors = [k for k, t in enumerate(self.terms) if t.flat and t.sides[0].seats[0].leg.index.ndim == 1]
        self.layout = layout_of(self.terms, self.classes)
        self.coupling = Coupling.of(self.terms, self.size)

    def scales(self, u: Tensor) -> list[tuple[str, Tensor]]:
        """The elements of the symmetries: λ = exp u, for a plane λ times the unit matrix."""
        return [
            (symmetry.name, torch.diag_embed(scale[:, None].expand(-1, 2)) if symmetry.name in self._planes else scale)
            for symmetry, scale in self.factors(u)
        ]

    def factors(self, u: Tensor) -> list[tuple[LinearSymmetry, Tensor]]:
        """Every class as a scaling, with λ = exp u."""
        scales = torch.split_with_sizes(u.double().exp(), [n for _, n in self.classes.values()])
        return list(zip(self.symmetries.values(), scales, strict=True))

    # ---- moments ---------------------------------------------------------------------------------------------------
    def here(self, tensors: Mapping[str, Tensor]) -> Moments:
        """Moments at u = 0, in one pass over the parameters; squares go to a scratch buffer that is kept."""
        found = [values(term, tensors) for term in self.terms]
        vectors = iter(torch._foreach_mul(*[[found[k] for k in self._vectors]] * 2) if self._vectors else ())
        parts: list[tuple[Tensor, ...]] = []
        for term, tensor in zip(self.terms, found, strict=True):
            if tensor.ndim == 1 and term.flat:
                parts.append((next(vectors),))
            elif sums_of_rows(term):
                parts.append((torch.linalg.vector_norm(tensor.flatten(1), dim=1).square_(),))
            elif tensor.numel() <= _SCRATCH or not term.flat:
                parts.append(marginals(term, self._square(tensor)))
            else:
                rows = max(1, _SCRATCH * tensor.shape[0] // tensor.numel())
                pieces = [marginals(term, self._square(piece)) for piece in torch.split(tensor, rows)]
                parts.append(joined(term, pieces))
        return self._collect(parts)

    def differentiable(self, tensors: Mapping[str, Tensor]) -> Moments:
        """As :meth:`here`, for automatic differentiation: no scratch buffer."""
        return self._collect([marginals(term, values(term, tensors).square()) for term in self.terms])

    def _square(self, tensor: Tensor) -> Tensor:
        """P² in the scratch buffer: valid until the next call."""
        key = (tensor.shape, tensor.dtype, tensor.device)
        view = self._scratch.get(key)
        if view is None:
            whole = (tensor.dtype, tensor.device)
            buffer = self._scratch.get(whole)
            if buffer is None or buffer.numel() < tensor.numel():
                self._scratch = {k: v for k, v in self._scratch.items() if k[-2:] != whole}
                buffer = self._scratch[whole] = tensor.new_empty(tensor.numel())
            view = self._scratch[key] = buffer[: tensor.numel()].view(tensor.shape)
        return torch.mul(tensor, tensor, out=view)

    def at(self, squares: list[Squares], u: Tensor) -> Moments:
        """Moments at ``u``, from :meth:`squares`."""
        grown = (2.0 * u).exp()
        factors = {1: grown, -1: grown.reciprocal()}
        parts = []
        for term, s in zip(self.terms, squares, strict=True):
            parts.append(self._weighted(term, self._square(s.tensor) if s.raw else s.tensor, factors))
        return self._collect(parts)

    def squares(self, tensors: Mapping[str, Tensor], now: Moments | None = None) -> list[Squares]:
        """S of every term: squares summed over the axes along which no leg varies (``now``: what :meth:`here` gave)."""
        return [
            Squares(now.parts[k][0])
            if now is not None and term.flat and len(term.sides) == 1
            else self._squares_of(term, values(term, tensors))
            for k, term in enumerate(self.terms)
        ]

    def _squares_of(self, term: Term, tensor: Tensor) -> Squares:
        small = tensor.ndim > 1 and tensor.numel() <= _SCRATCH
        whole = len({axis for side in term.sides for axis in side.axes}) == tensor.ndim
        if small and whole and term.flat:
            return Squares(tensor, raw=True)
        return Squares(reduced(term, self._square(tensor) if small and not whole else tensor.square()))

    def _collect(self, parts: list[tuple[Tensor, ...]]) -> Moments:
        totals = []
        for levels in self.layout:
            total = None
            for level in levels:
                row = torch.cat([piece_of(parts, where) if where else parts[0][0].new_zeros(n) for n, where in level])
                total = row if total is None else total + row
            totals.append(total)
        ins, outs = totals
        assert ins is not None
        assert outs is not None
        return Moments(ins, outs, parts)

    def _weighted(self, term: Term, square: Tensor, factors: dict[int, Tensor]) -> tuple[Tensor, ...]:
        weights = self._weights(term, factors)
        if not term.flat:
            for weight in weights:
                square = square * weight
            return tuple(onto(square, side.axes) for side in term.sides)
        first = weights[0].reshape(-1)
        if len(weights) == 1:
            return (square * first,)
        second = weights[1].reshape(-1)
        return first * (square @ second), second * (square.t() @ first)

    def _weights(self, term: Term, factors: dict[int, Tensor]) -> list[Tensor]:
        """exp(2 Σ p u) over the entries of every side."""
        return [weight_of(side, factors) for side in term.sides]

    # ---- the solution ----------------------------------------------------------------------------------------------
    @torch.no_grad()
    def solve(
        self,
        tensors: Mapping[str, Tensor],
        tolerance: float = 1e-4,
        iterations: int = 300,
        now: Moments | None = None,
    ) -> Tensor:
        """Return u that minimises Φ; ``tolerance`` bounds the largest |log λ| that is left.

        Args:
            tensors: parameters by name.
            tolerance: see above.
            iterations: limit.
            now: what :meth:`here` gives, if it is known.

        Raises:
            NonFiniteError: if a parameter is not finite.
        """
        if not self.size:
            return torch.zeros(0)
        now = self.here(tensors) if now is None else now
        delta = newton_step(self.coupling, now.ins, now.outs, now.parts)
        largest = float(delta.abs().max())  # NaN if any moment is not finite
        if not largest < 80.0:  # NaN, or squares that overflowed
            names = [term.parameter for term in self.terms]
            require_finite(subset(tensors, names))
            if now.ins.dtype != torch.float64:
                return self.solve(widened(tensors, names), tolerance)
        if self._settled(largest, self.coupling.contraction, tolerance):
            return delta
        return self.refine(self.squares(tensors, now), torch.zeros_like(delta), tolerance, iterations, now)

    def refine(
        self, squares: list[Squares], u: Tensor, tolerance: float, iterations: int = 300, now: Moments | None = None
    ) -> Tensor:
        """Go on from ``u`` with the squares at hand (``now``: the moments there, if they are known)."""
        now = self.at(squares, u) if now is None else now
        value = float(now.norm())
        before = float("inf")
        for _ in range(iterations):
            delta = newton_step(self.coupling, now.ins, now.outs, now.parts)
            largest = float(delta.abs().max())
            if self._settled(largest, max(self.coupling.contraction, largest / before), tolerance):
                return u + delta
            u, now, value = self._advance(squares, u, delta, value)
            before = largest
        return u

    def replace_(self, squares: list[Squares], tensors: Mapping[str, Tensor]) -> None:
        """Exchange the squares of some parameters, given at u = 0."""
        for k, term in enumerate(self.terms):
            if term.parameter in tensors:
                squares[k] = self._squares_of(term, values(term, tensors).to(squares[k].tensor.dtype))

    def _settled(self, largest: float, contraction: float, tolerance: float) -> bool:
        """Whether a step of this size leaves no more than ``tolerance``, so that it is the last one.

        Steps that shrink by a factor c leave c/(1 − c) of the last one.
        """
        c = min(contraction, 0.9)
        return largest * c / (1.0 - c) <= tolerance

    def _advance(self, squares: list[Squares], u: Tensor, delta: Tensor, value: float) -> tuple[Tensor, Moments, float]:
        """Take the step, halved until Φ does not grow (up to rounding)."""
        slack = value * 10.0 * torch.finfo(delta.dtype).eps
        for _ in range(40):
            moments = self.at(squares, u + delta)
            new = float(moments.norm())
            if new <= value + slack:
                break
            delta = 0.5 * delta
        return u + delta, moments, new
