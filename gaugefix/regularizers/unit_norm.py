"""Unit norm as a penalty (axial gauge)."""

from __future__ import annotations

import torch
from torch import Tensor

from gaugefix.regularizers.base import register_term, total
from gaugefix.regularizers.moments import Moments
from gaugefix.regularizers.of_moments import MomentTerm


@register_term("unit_norm")
class UnitNorm(MomentTerm):
    """R = Σ_i (in_i − 1)² + Σ_blocks ‖A − 1‖_F²; weights and bias of a unit count together."""

    condition = "in_i = 1 for every unit, A = 1 for every block (unit norm, axial gauge)"
    freedom = "rotations of blocks, phases of rotary planes, shifts and kernels"
    changes_function = "on the way: the gradient moves one side of a unit alone; on the slice it is zero"
    cost = "two passes over the parameters"
    source = "axial gauge: arXiv 2402.02362, Section 6; as a slice: gaugefix.slices.UnitNorm"

    def of(self, moments: Moments) -> Tensor:
        parts = [(moments.ins - 1.0).square().sum()]
        return total(parts + [excess(a).square().sum() for a, _ in moments.blocks])

    def slopes(self, moments: Moments) -> Moments:
        blocks = tuple((2.0 * excess(a), torch.zeros_like(b)) for a, b in moments.blocks)
        return Moments(2.0 * (moments.ins - 1.0), torch.zeros_like(moments.outs), blocks)


def excess(a: Tensor) -> Tensor:
    """A − 1."""
    return a - torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
