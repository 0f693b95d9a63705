"""Norm balancing in logarithms: minimal norm in coordinates along the orbit, free of scale."""

from __future__ import annotations

import torch
from torch import Tensor

from gaugefix.regularizers.base import register_term, total
from gaugefix.regularizers.matrix_log import Eigen, matrix_log
from gaugefix.regularizers.moments import Moments
from gaugefix.regularizers.of_moments import MomentTerm


@register_term("balance")
class Balance(MomentTerm):
    """R = Σ_i (log in_i − log out_i)² + Σ_blocks ‖log A − log B‖_F².

    It is quadratic in the distance from the slice wherever the parameters are, and does not see how large they are.
    Units that are dead on one side and blocks without full rank are left out.
    """

    condition = "in_i = out_i for every unit, A = B for every block (minimal norm, Landau gauge), in log coordinates"
    freedom = "rotations that keep A = B, phases of rotary planes, shifts and kernels"
    changes_function = "on the way: away from the slice its gradient is partly horizontal, on the slice it is zero"
    cost = "two passes over the parameters, two eigendecompositions per block"
    source = "norm balancing: cf. Terin, arXiv 2602.14729; logarithms of matrices: ours"

    def of(self, moments: Moments) -> Tensor:
        ins, outs = _alive(moments)
        parts = [(ins.log() - outs.log()).square().sum()]
        for a, b in moments.blocks:
            (log_a, full_a), (log_b, full_b) = matrix_log(a), matrix_log(b)
            parts.append((log_a - log_b).square().sum((-2, -1))[full_a & full_b].sum())
        return total(parts)

    def slopes(self, moments: Moments) -> Moments:
        ins, outs = _alive(moments)
        ratio = (ins / outs).log_().mul_(2.0)
        return Moments(ratio / ins, (ratio / outs).neg_(), tuple(_block_slopes(a, b) for a, b in moments.blocks))


def _alive(moments: Moments) -> tuple[Tensor, Tensor]:
    """In and out of each unit; 1 for one that is dead on one side, whose logarithms are then equal."""
    dead = torch.minimum(moments.ins, moments.outs) <= 0.0
    return moments.ins.masked_fill(dead, 1.0), moments.outs.masked_fill(dead, 1.0)


def _block_slopes(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    first, second = Eigen(a), Eigen(b)
    apart = torch.where((first.full & second.full)[:, None, None], 2.0 * (first.log() - second.log()), 0.0)
    return first.log_slope(apart), second.log_slope(-apart)
