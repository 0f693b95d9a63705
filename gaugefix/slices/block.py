"""The closed form of minimal norm for GL blocks."""

from __future__ import annotations

import torch
from torch import Tensor


def balance_blocks(a: Tensor, b: Tensor, floor: float = 1e-12) -> tuple[Tensor, float]:
    """Solve gAgᵀ = g⁻ᵀBg⁻¹ with g symmetric positive, for (batch, n, n) second moments A and B.

    With A = L Lᵀ and B = K Kᵀ, LᵀK = U s Vᵀ: M = L⁻ᵀ U s Uᵀ L⁻¹ is the geometric mean of A⁻¹ and B, and g = M^{1/2}
    (MATH §3). Rank-deficient blocks (LoRA at initialisation has B = 0) are left alone.

    Args:
        a: Σ PPᵀ over vectors, float64.
        b: Σ PPᵀ over covectors, float64.
        floor: smallest ratio of eigenvalues of a block that counts as regular.

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
    values = values.clamp_min(1e-300)
    g: Tensor = (vectors * values.sqrt()[:, None, :]) @ vectors.mT
    return g, float(0.5 * values.log().abs().max())


def _condition(a: Tensor) -> Tensor:
    values: Tensor = torch.linalg.eigvalsh(a)
    ratio: Tensor = values[:, 0] / values[:, -1].clamp_min(1e-300)
    return ratio
