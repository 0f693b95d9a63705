"""The nuclear norm of W_QᵀW_K: a control that no mixing changes."""

from __future__ import annotations

import torch
from torch import Tensor

from gaugefix.errors import SettingError
from gaugefix.regularizers.base import register_term, total
from gaugefix.regularizers.moments import Moments, moment_map
from gaugefix.regularizers.of_moments import MomentTerm
from gaugefix.slices.block import balance_blocks, full_rank
from gaugefix.symmetry import GaugeGroup


@register_term("nuclear_norm")
class NuclearNorm(MomentTerm):
    """R = Σ_blocks ‖XᵀY‖_*, X and Y the vectors and covectors of a block: the sum of the singular values of W_QᵀW_K.

    It is ½(tr A + tr B) where that is least on the orbit. With s² the eigenvalues of AB, R = Σ s; ∂R/∂A = ½ A⁻¹#B and
    ∂R/∂B = ½ (A⁻¹#B)⁻¹, # the geometric mean. Blocks without full rank are left out.
    """

    condition = "none: it is the same everywhere on an orbit of the blocks (control)"
    freedom = "all of GL(n); scaled units are not touched (see product_of_norms)"
    changes_function = "yes, and only that"
    invariant = True
    cost = "two passes over the parameters of blocks, two eigendecompositions per block"
    source = "the variational form of Srebro, Rennie and Jaakkola (2004): min ½(‖X‖² + ‖Y‖²) = ‖XᵀY‖_*"

    def of(self, moments: Moments) -> Tensor:
        parts = []
        for a, b in moments.blocks:
            full = full_rank(a.detach().double()) & full_rank(b.detach().double())
            low = torch.linalg.cholesky_ex(a.double()[full])[0]
            parts.append(torch.linalg.eigvalsh(low.mT @ b.double()[full] @ low).clamp_min(1e-300).sqrt().sum())
        return total(parts)

    def slopes(self, moments: Moments) -> Moments:
        blocks = []
        for a, b in moments.blocks:
            wide_a, wide_b = a.double(), b.double()
            full = (full_rank(wide_a) & full_rank(wide_b))[:, None, None]
            g, _ = balance_blocks(wide_a, wide_b)
            mean = 0.5 * g @ g
            inverse = 0.25 * torch.linalg.inv(mean)
            blocks.append((torch.where(full, mean, 0.0).to(a.dtype), torch.where(full, inverse, 0.0).to(b.dtype)))
        return Moments(torch.zeros_like(moments.ins), torch.zeros_like(moments.outs), tuple(blocks))

    def check(self, gauge: GaugeGroup) -> None:
        if not moment_map(gauge).blocks:
            raise SettingError(
                "Expected blocks that mix (attention heads, linear bottlenecks) for the term 'nuclear_norm', got a "
                "gauge group without GL. For units that scale use product_of_norms."
            )
