"""Unit norm (axial gauge): the incoming vector of every hidden unit has norm 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping

import torch
from torch import Tensor

from gaugefix.errors import SliceError
from gaugefix.groups import GeneralLinear
from gaugefix.sharding import Shards, copied, subset, widened
from gaugefix.slices.balance import Balance
from gaugefix.slices.base import Slice, register_slice
from gaugefix.slices.minimal_norm import joint_for
from gaugefix.slices.on_shards import require_all_finite
from gaugefix.slices.second_moment import second_moments
from gaugefix.slices.sharded_balance import scale_rows_
from gaugefix.symmetry import Element, GaugeGroup, LinearSymmetry


@register_slice("unit_norm")
class UnitNorm(Slice):
    """in_i = Σ_vector legs ‖P_i‖² = 1 for every scaled unit or rotary plane, A = Σ PPᵀ = 1 for a GL block.

    Weights and bias count together.

    Layers are solved in the order of their coupling: rescaling a layer changes the incoming vectors of the next one.
    Dead units are left alone; shifts and kernels do not take part.

    Args:
        tolerance: largest |log λ| that is left.
        rounds: limit of sweeps.
    """

    takes_shards = True

    def __init__(self, tolerance: float = 1e-6, rounds: int = 500) -> None:
        self.tolerance = tolerance
        self.rounds = rounds

    @torch.no_grad()
    def solve(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Element:
        balance = joint_for(gauge, tensors).balance
        blocks = [s for s in gauge.applied if isinstance(s, LinearSymmetry) and isinstance(s.group, GeneralLinear)]
        require_all_finite(subset(tensors, gauge.shapes))
        squares = balance.squares(tensors) if balance.size else []
        device = squares[0].tensor.device if squares and not isinstance(tensors, Shards) else "cpu"
        u = torch.zeros(balance.size, dtype=torch.float64, device=device)
        work = widened(tensors, gauge.shapes if blocks else ())
        steps: dict[str, Tensor] = {}
        alive: Tensor | None = None
        sweep = 0
        for _ in range(self.rounds):
            sweep += 1
            moved = 0.0
            if balance.size:
                now = balance.at(squares, u.to(squares[0].tensor.dtype))
                ins = now.ins.double()
                alive = (ins > 0) & (now.outs > 0) if alive is None else alive
                delta = torch.where(alive, -0.5 * ins.log(), 0.0)
                u = u + delta
                moved = float(delta.abs().max())
                if not math.isfinite(moved) and squares[0].tensor.dtype != torch.float64:  # squares that overflowed
                    return self.solve(gauge, widened(tensors, gauge.shapes))
                if not math.isfinite(moved):
                    break
                if blocks:
                    _scale_(work, balance, delta)
            for block in blocks:
                a, _ = second_moments(block, work)
                g, size = _whiten(a)
                moved = max(moved, size)
                work.update(block.act(work, g))
                steps[block.name] = block.group.compose(g, steps[block.name]) if block.name in steps else g
            if blocks and balance.size:
                squares = balance.squares(_undone(work, balance, u))
            if moved < self.tolerance:
                return Element((*balance.scales(u), *steps.items()))
        raise SliceError(
            f"Expected an orbit that meets the unit-norm slice, got no convergence in {sweep} sweeps. Units that "
            "feed themselves (shared recurrent weights) cannot all have norm 1: use slice='minimal_norm'."
        )

    @torch.no_grad()
    def residual(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the root mean square of in_i − 1 over live units and of A − 1 over blocks."""
        balance = joint_for(gauge, tensors).balance
        parts = []
        if balance.size:
            now = balance.here(tensors)
            parts.append((now.ins - 1.0)[(now.ins > 0) & (now.outs > 0)].double().cpu())
        for s in gauge.applied:
            if isinstance(s, LinearSymmetry) and isinstance(s.group, GeneralLinear):
                a, _ = second_moments(s, tensors)
                parts.append((a - torch.eye(s.group.n, dtype=a.dtype, device=a.device)).reshape(-1).cpu())
        return torch.cat(parts).square().mean().sqrt() if parts else torch.zeros((), dtype=torch.float64)


def _whiten(a: Tensor) -> tuple[Tensor, float]:
    """G = A^{-1/2} per block; rank-deficient blocks stay."""
    values, vectors = torch.linalg.eigh(a)
    regular = values[:, :1] > 1e-12 * values[:, -1:].clamp_min(1e-300)
    inverse = torch.where(regular, values.clamp_min(1e-300).rsqrt(), 1.0)
    return (vectors * inverse[:, None, :]) @ vectors.mT, float(inverse.log().abs().max())


def _undone(work: Mapping[str, Tensor], balance: Balance, u: Tensor) -> MutableMapping[str, Tensor]:
    """The parameters with the GL steps but without the scales (which ``u`` holds)."""
    out = copied(work)
    _scale_(out, balance, -u)
    return out


def _scale_(tensors: MutableMapping[str, Tensor], balance: Balance, u: Tensor) -> None:
    """Act with the scales e^u."""
    for symmetry, scale in balance.factors(u):
        if isinstance(tensors, Shards):
            scale_rows_(tensors, symmetry, scale)
        else:
            tensors.update(symmetry.act(tensors, scale))
