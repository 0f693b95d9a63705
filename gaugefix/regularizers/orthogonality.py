"""Orthogonality of the blocks that mix."""

from __future__ import annotations

import torch
from torch import Tensor

from gaugefix.errors import SettingError
from gaugefix.regularizers.base import register_term, total
from gaugefix.regularizers.moments import Moments, moment_map
from gaugefix.regularizers.of_moments import MomentTerm
from gaugefix.regularizers.unit_norm import excess
from gaugefix.symmetry import GaugeGroup


@register_term("orthogonality")
class Orthogonality(MomentTerm):
    """R = Σ_blocks ‖A − 1‖_F² with A = W Wᵀ: the rows of W_Q, say, become orthonormal within each head.

    On blocks of GL(n) alone, where every W of full rank has such a representative. Penalising the rows of a layer of
    scaled units as well would turn them against each other, which is no gauge.
    """

    condition = "W Wᵀ = 1 on the vector side of every block"
    freedom = "rotations of blocks; scaled units, phases, shifts and kernels stay free"
    changes_function = "on the way: the gradient moves one side of a block alone; on the slice it is zero"
    cost = "two passes over the parameters of blocks"
    source = "orthogonal representative; as a penalty on layers: Bansal et al., arXiv 1810.09102"

    def of(self, moments: Moments) -> Tensor:
        return total([excess(a).square().sum() for a, _ in moments.blocks])

    def slopes(self, moments: Moments) -> Moments:
        blocks = tuple((2.0 * excess(a), torch.zeros_like(b)) for a, b in moments.blocks)
        return Moments(torch.zeros_like(moments.ins), torch.zeros_like(moments.outs), blocks)

    def check(self, gauge: GaugeGroup) -> None:
        if not moment_map(gauge).blocks:
            raise SettingError(
                "Expected blocks that mix (attention heads, linear bottlenecks) for the term 'orthogonality', got a "
                "gauge group without GL. Use unit_norm, which sets the norm of each unit alone."
            )
