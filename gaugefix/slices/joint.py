"""Minimal norm over all kinds of symmetries together: scalings, GL blocks, shifts and kernels.

Kinds that share parameters alternate. Only the parameters that the other kinds read are copied; the balance of the
scalings goes on from the squares that it has.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from gaugefix.errors import ConvergenceWarning
from gaugefix.groups import GeneralLinear
from gaugefix.slices.anderson import AndersonMixer
from gaugefix.slices.balance import Balance
from gaugefix.slices.base import require_finite
from gaugefix.slices.blocks import Blocks
from gaugefix.slices.bundle import Bundle
from gaugefix.slices.least_norm import least_norm
from gaugefix.slices.term import Moments
from gaugefix.symmetry import PARAMETER, Add, GaugeGroup, LinearSymmetry, ResidualRotation, ShiftSymmetry, Symmetry

Steps = list[tuple[str, Tensor]]

_RUNAWAY = 12.0
"""|log λ| beyond the balance of the scalings alone at which the joint problem counts as having no solution."""
_SWEEPS = 200
"""Sweeps over the blocks."""
_TURNS = 2
"""Alternations of blocks with shifts and kernels at given scalings."""
_AFFINE_SWEEPS = 4
"""Alternations of shifts and kernels: the last digits of a slow pair are not worth their time."""


class Joint:
    """The joint problem of a gauge group, compiled once."""

    def __init__(self, gauge: GaugeGroup) -> None:
        self.gauge = gauge
        self.balance = Balance(gauge)
        mixing: list[LinearSymmetry] = []
        self.affine: list[Symmetry] = []
        for s in gauge.applied:
            if s.conditional or isinstance(s, ResidualRotation):
                continue  # they change the norm through gains that may be small, and without bound
            if not isinstance(s, LinearSymmetry):
                self.affine.append(s)
            elif isinstance(s.group, GeneralLinear):
                mixing.append(s)
        self.blocks = Blocks(mixing, _shifted(self.affine))
        shifts = [s for s in self.affine if isinstance(s, ShiftSymmetry)]
        self.bundle = Bundle(shifts) if shifts else None
        self.kernels = [s for s in self.affine if not isinstance(s, ShiftSymmetry)]
        self.names = list(dict.fromkeys(name for s in (*mixing, *self.affine) for name in s.reads))
        self.scaled_names = {term.parameter for term in self.balance.terms}
        self.unreached: set[str] = set()
        self.scalings_only = not self.names

    def solve(self, tensors: Mapping[str, Tensor], tolerance: float, rounds: int, now: Moments | None = None) -> Steps:
        """Return the steps: scalings, then blocks, then shifts and kernels (``now``: the moments, if known)."""
        u = self.balance.solve(tensors, tolerance, now=now)
        if self.scalings_only:
            return self.balance.scales(u)
        if not self.balance.size and not self.affine and self.blocks.exact:
            return self._alone(tensors)
        balanced = u
        start = {name: tensors[name].detach().double() for name in self.names}
        require_finite(start)
        steps, moved, left = self._others(start, u, tolerance)
        shared = [name for name in self.names if name in self.scaled_names]
        if not self.balance.size or not shared or left <= tolerance:
            return [*self.balance.scales(u), *steps]
        squares = self.balance.squares(tensors)
        mixer = AndersonMixer()
        for _ in range(rounds):
            self.balance.replace_(squares, self._scaled({name: moved[name] for name in shared}, -u))
            better = self.balance.refine(squares, u, 0.1 * tolerance)
            change = float((better - u).abs().max())
            u = mixer.next(u, better)
            if not float((u - balanced).abs().max()) < _RUNAWAY:
                return self._give_up(balanced)
            steps, moved, _ = self._others(start, u, tolerance)
            if change <= tolerance:
                return [*self.balance.scales(u), *steps]
        warnings.warn(
            f"Expected the minimal-norm slice within {rounds} rounds, still moving by |log λ| = {change:.1e} "
            f"(tolerance {tolerance:.1e}). The element leads closer to it, not onto it: raise MinimalNorm(rounds=...).",
            ConvergenceWarning,
            stacklevel=2,
        )
        return [*self.balance.scales(u), *steps]

    def _alone(self, tensors: Mapping[str, Tensor]) -> Steps:
        """Blocks that meet nothing else: one solution from their moments, and nothing is copied."""
        found = self.blocks.solve(self.blocks.symmetries, tensors)
        if not all(math.isfinite(float(g.sum())) for g, _ in found.values()):
            require_finite({name: tensors[name] for name in self.names})
        return [(name, g) for name, (g, _) in found.items()]

    def _give_up(self, balanced: Tensor) -> Steps:
        """Balance the scalings alone, now and from now on: with the other kinds the norm has no minimum here."""
        self.scalings_only = True
        others = ", ".join(s.name for s in (*self.blocks.symmetries, *self.affine))
        warnings.warn(
            f"Expected a point of least norm over scalings together with {others}, got scales that grow without limit. "
            "Only the scalings are balanced for this model; the others are left where they are.",
            ConvergenceWarning,
            stacklevel=2,
        )
        return self.balance.scales(balanced)

    def _others(
        self, start: Mapping[str, Tensor], u: Tensor, tolerance: float
    ) -> tuple[Steps, dict[str, Tensor], float]:
        """Blocks, shifts and kernels at given scalings: their steps, the parameters then, and how far they moved.

        What the shifts leave in a bias is little beside the weights of a block, so that two turns settle both.
        """
        work = self._scaled(start, u)
        steps: Steps = []
        first = 0.0
        for turn in range(_TURNS if self.affine else 1):
            mixed, totals = self._settle(work, tolerance)
            steps += totals.items()
            moved, affine = self._affine_steps(work, tolerance)
            steps += affine
            first = first if turn else max(mixed, moved)
            if max(mixed, moved) <= tolerance:
                break
        return steps, work, first

    def _settle(self, work: dict[str, Tensor], tolerance: float) -> tuple[float, dict[str, Tensor]]:
        """Sweep over the blocks until none moves; return how far the first sweep went, and their elements.

        An orbit need not hold a point of least norm (maps that expand, one after another): its blocks move for ever.
        Those are left where they are from then on, by name.
        """
        while any(s.name not in self.unreached for s in self.blocks.symmetries):
            start = dict(work)
            totals: dict[str, Tensor] = {}
            first: float | None = None
            sizes: dict[str, float] = {}
            for _ in range(_SWEEPS):
                size = self.blocks.sweep(work, totals, sizes, self.unreached)
                first = size if first is None else first
                if self.blocks.exact or size <= 0.1 * tolerance:
                    return first, totals
            work.update(start)
            restless = {name for name, size in sizes.items() if size > 0.1 * tolerance}
            self.unreached |= restless
            warnings.warn(
                f"Expected a point of least norm for {', '.join(sorted(restless))}, got none within {_SWEEPS} sweeps: "
                "the maps around expand. Left where they are.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return 0.0, {}

    def _affine_steps(self, work: dict[str, Tensor], tolerance: float) -> tuple[float, Steps]:
        """Shifts and kernels in turn; how far the first turn went, and the steps."""
        steps: Steps = []
        first: float | None = None
        for _ in range(_AFFINE_SWEEPS):
            largest = 0.0
            if self.bundle is not None:
                values, largest = self.bundle.solve(work)
                if largest > 0.0:
                    work.update(self.bundle.move(work, values))
                    steps += values
            for s in self.kernels:
                value, size = least_norm(s, work)
                if size > 0.0:
                    work.update(s.act(work, value))
                    steps.append((s.name, value))
                largest = max(largest, size)
            first = largest if first is None else first
            if largest <= 0.1 * tolerance or not (self.kernels and self.bundle):
                break
        return first or 0.0, steps

    def _scaled(self, tensors: Mapping[str, Tensor], u: Tensor) -> dict[str, Tensor]:
        out = dict(tensors)
        for symmetry, scale in self.balance.factors(u):
            out.update(symmetry.transport(out, scale, PARAMETER))
        return out

    def residual(self, tensors: Mapping[str, Tensor], now: Moments | None = None) -> Tensor:
        """Return ‖μ‖/‖θ‖² over scalings and blocks: μ_i = in_i − out_i (live units), μ = A − B."""
        total, norm = torch.zeros(2, dtype=torch.float64).unbind()
        if self.balance.size:
            now = self.balance.here(tensors) if now is None else now
            alive = torch.minimum(now.ins, now.outs) > 0
            total = ((now.ins - now.outs) * alive).double().square().sum().cpu()
            norm = now.norm().double().cpu()
        if not self.scalings_only:
            total = total + self.blocks.imbalance(tensors, self.unreached)
        for name in _names(self.blocks.symmetries) - self.scaled_names:
            norm = norm + tensors[name].detach().double().square().sum().cpu()
        return total.sqrt() / norm if float(norm) else total


def _shifted(affine: Iterable[Symmetry]) -> set[str]:
    """Biases that shift freely."""
    shifts = [s for s in affine if isinstance(s, ShiftSymmetry)]
    return {leg.parameter for s in shifts for leg in s.legs if isinstance(leg, Add)}


def _names(symmetries: Iterable[LinearSymmetry]) -> set[str]:
    return {leg.parameter for s in symmetries for leg in s.legs if not leg.buffer}
