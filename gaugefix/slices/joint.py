"""Minimal norm over all kinds of symmetries together: scalings, GL blocks, shifts and kernels.

Kinds that share parameters alternate. Only the parameters that the other kinds read are copied; the balance of the
scalings goes on from the squares that it has.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from gaugefix.errors import ConvergenceWarning
from gaugefix.groups import GeneralLinear
from gaugefix.slices.anderson import AndersonMixer
from gaugefix.slices.balance import Balance
from gaugefix.slices.base import require_finite
from gaugefix.slices.block import balance_blocks
from gaugefix.slices.least_norm import least_norm
from gaugefix.slices.second_moment import second_moments
from gaugefix.slices.term import Moments
from gaugefix.symmetry import PARAMETER, GaugeGroup, LinearSymmetry, Symmetry

Steps = list[tuple[str, Tensor]]


class Joint:
    """The joint problem of a gauge group, compiled once."""

    def __init__(self, gauge: GaugeGroup) -> None:
        self.gauge = gauge
        self.balance = Balance(gauge)
        self.blocks: list[LinearSymmetry] = []
        self.affine: list[Symmetry] = []
        for s in gauge.applied:
            if not isinstance(s, LinearSymmetry):
                self.affine.append(s)
            elif isinstance(s.group, GeneralLinear):
                self.blocks.append(s)
        self.scalings = [s for name in self.balance.classes if isinstance(s := gauge[name], LinearSymmetry)]
        self.names = list(dict.fromkeys(name for s in (*self.blocks, *self.affine) for name in s.reads))
        self.scaled_names = {term.parameter for term in self.balance.terms}

    def solve(self, tensors: Mapping[str, Tensor], tolerance: float, rounds: int, now: Moments | None = None) -> Steps:
        """Return the steps: scalings, then blocks, then shifts and kernels (``now``: the moments, if known)."""
        u = self.balance.solve(tensors, tolerance, now=now)
        if not self.names:
            return self.balance.scales(u)
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

    def _others(
        self, start: Mapping[str, Tensor], u: Tensor, tolerance: float
    ) -> tuple[Steps, dict[str, Tensor], float]:
        """Blocks, shifts and kernels at given scalings: their steps, the parameters then, and how far they moved."""
        work = self._scaled(start, u)
        totals: dict[str, Tensor] = {}
        first = None
        for _ in range(100):
            size = self._sweep(work, totals)
            first = size if first is None else first
            if size <= 0.1 * tolerance or len(self.blocks) + len(self.affine) == 1:
                break
        work = self._scaled(start, u)
        for name, value in totals.items():
            work.update(self.gauge[name].act(work, value))
        steps = [*totals.items(), *self._affine_steps(work, tolerance)]
        return steps, work, first or 0.0

    def _sweep(self, work: dict[str, Tensor], totals: dict[str, Tensor]) -> float:
        """Solve every block and every affine symmetry once; return the largest step."""
        largest = 0.0
        for s in self.blocks:
            g, size = balance_blocks(*second_moments(s, work))
            work.update(s.act(work, g))
            totals[s.name] = s.group.compose(g, totals[s.name]) if s.name in totals else g
            largest = max(largest, size)
        return max(largest, self._affine_sweep(work, []))

    def _affine_sweep(self, work: dict[str, Tensor], steps: Steps) -> float:
        largest = 0.0
        for s in self.affine:
            value, size = least_norm(s, work)
            if size > 0.0:
                work.update(s.act(work, value))
                steps.append((s.name, value))
            largest = max(largest, size)
        return largest

    def _affine_steps(self, work: dict[str, Tensor], tolerance: float) -> Steps:
        """The shifts and kernels once more, from where the linear part of the element leads."""
        steps: Steps = []
        for _ in range(100):
            if self._affine_sweep(work, steps) <= 0.1 * tolerance or len(self.affine) == 1:
                break
        return steps

    def _scaled(self, tensors: Mapping[str, Tensor], u: Tensor) -> dict[str, Tensor]:
        out = dict(tensors)
        scales = dict(self.balance.scales(u)) if self.balance.size else {}
        for s in self.scalings:
            out.update(s.transport(out, scales[s.name], PARAMETER))
        return out

    def residual(self, tensors: Mapping[str, Tensor], now: Moments | None = None) -> Tensor:
        """Return ‖μ‖/‖θ‖² over scalings and blocks: μ_i = in_i − out_i (live units), μ = A − B."""
        total, norm = torch.zeros(2, dtype=torch.float64).unbind()
        if self.balance.size:
            now = self.balance.here(tensors) if now is None else now
            alive = torch.minimum(now.ins, now.outs) > 0
            total = ((now.ins - now.outs) * alive).double().square().sum().cpu()
            norm = now.norm().double().cpu()
        for s in self.blocks:
            a, b = second_moments(s, tensors)
            total = total + (a - b).square().sum().cpu()
        for name in _names(self.blocks) - self.scaled_names:
            norm = norm + tensors[name].detach().double().square().sum().cpu()
        return total.sqrt() / norm if float(norm) else total


def _names(symmetries: Iterable[LinearSymmetry]) -> set[str]:
    return {leg.parameter for s in symmetries for leg in s.legs if not leg.buffer}
