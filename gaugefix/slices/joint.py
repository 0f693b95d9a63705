"""Minimal norm over all kinds of symmetries together: scalings, GL blocks, shifts and kernels.

Kinds that share parameters alternate. Only the parameters that the other kinds read are copied; the balance of the
scalings goes on from the squares that it has.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, MutableMapping, Sequence

import torch
from torch import Tensor

from gaugefix.errors import ConvergenceWarning
from gaugefix.groups import GeneralLinear
from gaugefix.sharding import Shards, copied, subset, widened
from gaugefix.slices.affine_gauge import affine_step
from gaugefix.slices.anderson import AndersonMixer
from gaugefix.slices.balance import Balance
from gaugefix.slices.base import require_finite
from gaugefix.slices.blocks import Blocks
from gaugefix.slices.least_norm import is_statistic, least_norm
from gaugefix.slices.sharded_balance import scale_rows_
from gaugefix.slices.shift_normal import ShiftNormal
from gaugefix.slices.term import Moments
from gaugefix.symmetry import (
    PARAMETER,
    Add,
    GaugeGroup,
    LinearSymmetry,
    ReaderKernel,
    ResidualRotation,
    ShiftSymmetry,
    Symmetry,
)

Steps = list[tuple[str, Tensor]]

_RUNAWAY = 12.0
"""|log λ| beyond the balance of the scalings alone at which the joint problem counts as having no solution."""
_SWEEPS = 200
"""Alternations of blocks, shifts and kernels."""
_AFFINE_SWEEPS = 30
"""Alternations of shifts and kernels alone: the last digits of a slow pair are not worth their time."""


class Joint:
    """The joint problem of a gauge group, compiled once.

    Args:
        gauge: the group.
        balance: the balance problem of its scalings, if it is not an ordinary one.
    """

    def __init__(self, gauge: GaugeGroup, balance: Balance | None = None) -> None:
        self.gauge = gauge
        self.balance = Balance(gauge) if balance is None else balance
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
        self.names = list(dict.fromkeys(name for s in (*mixing, *self.affine) for name in s.reads))
        self.scaled_names = {term.parameter for term in self.balance.terms}
        self.rooted = _rooted(self.affine)
        self.normals: dict[str, ShiftNormal] = {}
        self.scale = 0.0
        self.unreached: set[str] = set()
        self.scalings_only = not self.names

    def solve(self, tensors: Mapping[str, Tensor], tolerance: float, rounds: int, now: Moments | None = None) -> Steps:
        """Return the steps: scalings, then blocks, then shifts and kernels (``now``: the moments, if known)."""
        if now is None and self.balance.size:
            now = self.balance.here(tensors)
        u = self.balance.solve(tensors, tolerance, now=now)
        if self.scalings_only:
            return self.balance.scales(u)
        if not self.balance.size and not self.affine and self.blocks.exact:
            return self._alone(tensors)
        balanced = u
        start = widened(tensors, self.names)
        require_finite(start)
        self.scale = _size(start[name] for name in sorted(self.blocks.loose) if name in start)
        self.normals = {
            s.name: ShiftNormal(s, frozenset(n for n in s.parameters if not is_statistic(n)))
            for s in self.affine
            if isinstance(s, ShiftSymmetry) and s.name not in self.rooted
        }
        steps, moved, left = self._others(start, u, tolerance)
        shared = [name for name in self.names if name in self.scaled_names]
        if not self.balance.size or not shared or left <= tolerance:
            return [*self.balance.scales(u), *steps]
        squares = self.balance.squares(tensors, now)
        mixer = AndersonMixer()
        for _ in range(rounds):
            self.balance.replace_(squares, self._scaled(subset(moved, shared), -u))
            better = self.balance.refine(squares, u, 0.1 * tolerance)
            change = float((better - u).abs().max())
            u = mixer.next(u, better)
            if not float((u - balanced).abs().max()) < _RUNAWAY:
                return self._give_up(balanced)
            steps, moved, _ = self._others(start, u, tolerance, steps)
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
            require_finite(subset(tensors, self.names))
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
        self, start: Mapping[str, Tensor], u: Tensor, tolerance: float, before: Sequence[tuple[str, Tensor]] = ()
    ) -> tuple[Steps, MutableMapping[str, Tensor], float]:
        """Blocks, shifts and kernels at given scalings: their steps, the parameters then, and how far they moved.

        Blocks go on from the steps ``before``, those at other scalings.
        """
        active = any(s.name not in self.unreached for s in self.blocks.symmetries)
        first, totals = self._settle(self._scaled(start, u), tolerance, before) if active else (0.0, {})
        work = self._scaled(start, u)
        for name, value in totals.items():
            work.update(self.gauge[name].act(work, value))
        affine, size = self._affine_steps(work, tolerance)
        return [*totals.items(), *affine], work, max(first, size)

    def _settle(
        self, start: Mapping[str, Tensor], tolerance: float, before: Sequence[tuple[str, Tensor]]
    ) -> tuple[float, dict[str, Tensor]]:
        """Sweep until nothing moves; return how far the first sweep went, and the elements of the blocks.

        An orbit need not hold a point of least norm (maps that expand, one after another): its blocks move for ever.
        Those are left where they are from then on, by name.
        """
        while True:
            work = copied(start)
            totals: dict[str, Tensor] = {}
            mixing = {s.name for s in self.blocks.symmetries} - self.unreached
            for name, value in (step for step in before if step[0] not in self.unreached):
                work.update(self.gauge[name].act(work, value))
                if name in mixing:
                    totals[name] = value
            first: float | None = None
            sizes: dict[str, float] = {}
            for sweep in range(_SWEEPS):
                size = self.blocks.sweep(work, totals, sizes, self.unreached)
                if self.blocks.exact and not self.affine:
                    return size, totals
                moved = self._affine_sweep(work, [])
                first = max(size, moved) if first is None else first
                if sweep and size <= 0.1 * tolerance:  # what the affine ones do no longer moves a block
                    return first, totals
            restless = {name for name, size in sizes.items() if size > 0.1 * tolerance}
            if not restless:
                return first or 0.0, totals
            self.unreached |= restless
            warnings.warn(
                f"Expected a point of least norm for {', '.join(sorted(restless))}, got none within {_SWEEPS} sweeps: "
                "the maps around expand. Left where they are.",
                ConvergenceWarning,
                stacklevel=2,
            )

    def _affine_sweep(self, work: MutableMapping[str, Tensor], steps: Steps) -> float:
        largest = 0.0
        for s in self.affine:
            if s.name in self.rooted:
                value = affine_step(s, work)[0]
                size = float(value.norm()) / self.scale if self.scale else 0.0
            else:
                value, size = least_norm(s, work, scale=self.scale, normal=self.normals.get(s.name))
            if size > 0.0:
                work.update(s.act(work, value))
                steps.append((s.name, value))
            largest = max(largest, size)
        return largest

    def _affine_steps(self, work: MutableMapping[str, Tensor], tolerance: float) -> tuple[Steps, float]:
        """The shifts and kernels once more, from where the linear part of the element leads; how far they went."""
        steps: Steps = []
        first: float | None = None
        for _ in range(_AFFINE_SWEEPS):
            size = self._affine_sweep(work, steps)
            first = size if first is None else first
            if size <= 0.1 * tolerance or len(self.affine) == 1:
                break
        if not all(isinstance(s, ShiftSymmetry) for s in self.affine):
            return steps, first or 0.0
        total: dict[str, Tensor] = {}
        for name, value in steps:  # shifts move no weight, so that they commute
            total[name] = total[name] + value if name in total else value
        return list(total.items()), first or 0.0

    def _scaled(self, tensors: Mapping[str, Tensor], u: Tensor) -> MutableMapping[str, Tensor]:
        out = copied(tensors)
        for symmetry, scale in self.balance.factors(u):
            if isinstance(out, Shards):
                scale_rows_(out, symmetry, scale)
            else:
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
        # In one order: shards are gathered here.
        for name in sorted(_names(self.blocks.symmetries) - self.scaled_names):
            norm = norm + tensors[name].detach().double().square().sum().cpu()
        return total.sqrt() / norm if float(norm) else total


def _shifted(affine: Iterable[Symmetry]) -> set[str]:
    """Biases that shift freely."""
    shifts = [s for s in affine if isinstance(s, ShiftSymmetry)]
    return {leg.parameter for s in shifts for leg in s.legs if isinstance(leg, Add)}


def _rooted(affine: Iterable[Symmetry]) -> set[str]:
    """Shifts of norms whose readers have a kernel: β goes into the biases of the readers.

    β and the kernels meet in Σβ/γ times the kernel's coordinate; the least norm over both has several minima.
    """
    read = {s.shift for s in affine if isinstance(s, ReaderKernel)}
    return {s.name for s in affine if isinstance(s, ShiftSymmetry) and read & set(s.parameters)}


def _size(tensors: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(t.square().sum()) for t in tensors))


def _names(symmetries: Iterable[LinearSymmetry]) -> set[str]:
    return {leg.parameter for s in symmetries for leg in s.legs if not leg.buffer}
