"""Minimal norm (Landau gauge): the point of the orbit where Σ‖P‖² is smallest.

It exists, is unique up to rotations, and is where the moment map vanishes (Kempf–Ness; MATH §3): in_i = out_i for
every scaled unit, Σ PPᵀ over vectors = Σ PPᵀ over covectors for a GL block, orthogonality to every shift and kernel.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping

import torch
from torch import Tensor

from gaugefix.groups import GeneralLinear
from gaugefix.slices.balance import Balance
from gaugefix.slices.base import Slice, register_slice, require_finite
from gaugefix.slices.least_norm import least_norm
from gaugefix.slices.second_moment import second_moments
from gaugefix.symmetry import Element, GaugeGroup, LinearSymmetry, Symmetry

_COMPILED: weakref.WeakKeyDictionary[GaugeGroup, Balance] = weakref.WeakKeyDictionary()


def balance_of(gauge: GaugeGroup) -> Balance:
    """The compiled balance problem of a gauge group (cached)."""
    if gauge not in _COMPILED:
        _COMPILED[gauge] = Balance(gauge)
    return _COMPILED[gauge]


@register_slice("minimal_norm")
class MinimalNorm(Slice):
    """The minimal-norm slice.

    Diagonal groups are balanced together (:class:`Balance`); a GL block is solved in closed form,
    M = gᵀg with M A M = B, A = Σ_vectors PPᵀ and B = Σ_covectors PPᵀ, g = M^{1/2}; shifts and kernels by an orthogonal
    projection. Where several kinds couple, they alternate until nothing moves.

    Args:
        tolerance: largest |log λ| (or relative step of the other kinds) that is left.
        rounds: limit of alternations.
    """

    def __init__(self, tolerance: float = 1e-4, rounds: int = 200) -> None:
        self.tolerance = tolerance
        self.rounds = rounds

    def solve(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Element:
        balance = balance_of(gauge)
        others = [s for s in gauge.applied if s.group.dimension and s.name not in balance.classes]
        others = [s for s in others if not isinstance(s, LinearSymmetry) or isinstance(s.group, GeneralLinear)]
        if not others:
            return Element(tuple(balance.scales(balance.solve(tensors, self.tolerance))))
        require_finite({name: tensors[name] for name in gauge.shapes})
        work = {name: tensors[name].detach().double() for name in gauge.shapes}
        steps: list[tuple[str, Tensor]] = []
        for _ in range(self.rounds):
            moved = 0.0
            if balance.size:
                u = balance.solve(work, self.tolerance)
                moved = float(u.abs().max())
                self._apply(gauge, work, steps, balance.scales(u))
            for symmetry in others:
                value, size = self._solve_one(symmetry, work)
                moved = max(moved, size)
                self._apply(gauge, work, steps, [(symmetry.name, value)])
            if moved <= self.tolerance:
                break
        return Element(tuple(_joined(gauge, steps)))

    def residual(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return ‖μ‖/‖θ‖², over diagonal and GL parts: μ_i = in_i − out_i, μ = A − B."""
        balance = balance_of(gauge)
        total = torch.zeros((), dtype=torch.float64)
        if balance.size:
            now = balance.here(tensors)
            alive = (now.ins > 0) & (now.outs > 0)
            total = ((now.ins - now.outs) * alive).double().square().sum().cpu()
        for symmetry in gauge.applied:
            if isinstance(symmetry, LinearSymmetry) and isinstance(symmetry.group, GeneralLinear):
                a, b = second_moments(symmetry, tensors)
                total = total + (a - b).square().sum().cpu()
        names = {
            leg.parameter for s in gauge.applied if isinstance(s, LinearSymmetry) for leg in s.legs if not leg.buffer
        }
        norm = sum((tensors[name].detach().double().square().sum().cpu() for name in names), torch.zeros(()))
        return total.sqrt() / norm if float(norm) else total

    def _solve_one(self, symmetry: Symmetry, work: Mapping[str, Tensor]) -> tuple[Tensor, float]:
        if isinstance(symmetry, LinearSymmetry):
            return balance_blocks(*second_moments(symmetry, work))
        return least_norm(symmetry, work)

    def _apply(
        self,
        gauge: GaugeGroup,
        work: dict[str, Tensor],
        steps: list[tuple[str, Tensor]],
        new: list[tuple[str, Tensor]],
    ) -> None:
        for name, value in new:
            work.update(gauge[name].act(work, value))
            steps.append((name, value))


def balance_blocks(a: Tensor, b: Tensor, floor: float = 1e-12) -> tuple[Tensor, float]:
    """Solve gAgᵀ = g⁻ᵀBg⁻¹ with g symmetric positive, for (batch, n, n) second moments A and B.

    With A = L Lᵀ and B = K Kᵀ, LᵀK = U s Vᵀ: M = L⁻ᵀ U s Uᵀ L⁻¹ is the geometric mean of A⁻¹ and B, and g = M^{1/2}.
    Rank-deficient blocks (LoRA at initialisation has B = 0) are left alone.

    Returns:
        g (batch, n, n) and the largest |log| of its eigenvalues.
    """
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device).expand_as(a)
    regular = (_condition(a) > floor) & (_condition(b) > floor)
    a = torch.where(regular[:, None, None], a, eye)
    b = torch.where(regular[:, None, None], b, eye)
    low, high = torch.linalg.cholesky(a), torch.linalg.cholesky(b)
    u, s, _ = torch.linalg.svd(low.mT @ high)
    half = torch.linalg.solve_triangular(low.mT, u, upper=True) * s.sqrt()[:, None, :]
    values, vectors = torch.linalg.eigh(half @ half.mT)
    g = (vectors * values.clamp_min(1e-300).sqrt()[:, None, :]) @ vectors.mT
    return g, float(0.5 * values.clamp_min(1e-300).log().abs().max())


def _condition(a: Tensor) -> Tensor:
    values = torch.linalg.eigvalsh(a)
    return values[:, 0] / values[:, -1].clamp_min(1e-300)


def _joined(gauge: GaugeGroup, steps: list[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """Compose neighbouring steps as far as they commute: linear steps between two shifts, one per symmetry."""
    result: list[tuple[str, Tensor]] = []
    run: dict[str, Tensor] = {}
    for name, value in steps:
        if isinstance(gauge[name], LinearSymmetry):
            run[name] = gauge[name].group.compose(value, run[name]) if name in run else value
            continue
        result += run.items()
        run = {}
        if result and result[-1][0] == name:
            result[-1] = (name, gauge[name].group.compose(value, result[-1][1]))
        else:
            result.append((name, value))
    return [*result, *run.items()]
