"""The closed form of minimal norm for GL blocks."""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-12
"""Smallest ratio of eigenvalues of a second moment that counts as full rank."""


def balance_blocks(a: Tensor, b: Tensor, share: float = 1.0, regular: Tensor | None = None) -> tuple[Tensor, float]:
    """Solve gAgᵀ = g⁻ᵀBg⁻¹ with g symmetric positive, for (batch, n, n) second moments A and B.

    With A = L Lᵀ and B = K Kᵀ, LᵀK = U s Vᵀ: M = L⁻ᵀ U s Uᵀ L⁻¹ is the geometric mean of A⁻¹ and B, and g = M^{1/2}
    (MATH §3). Rank-deficient blocks (LoRA at initialisation has B = 0) are left alone.

    Args:
        a: Σ PPᵀ over vectors, float64.
        b: Σ PPᵀ over covectors, float64.
        share: part of the way to go, g = M^{share/2}: a half where vectors and covectors are legs of one parameter,
            which the other end moves too.
        regular: (batch,) blocks to solve; those of full rank by default.

    Returns:
        g (batch, n, n) and the largest |log| of its eigenvalues.
    """
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device).expand_as(a)
    full = full_rank(a) & full_rank(b)
    regular = full if regular is None else full & regular
    a = torch.where(regular[:, None, None], a, eye)
    b = torch.where(regular[:, None, None], b, eye)
    low, high = torch.linalg.cholesky(a), torch.linalg.cholesky(b)
    u, s, _ = torch.linalg.svd(low.mT @ high)
    half = torch.linalg.solve_triangular(low.mT, u, upper=True) * s.sqrt()[:, None, :]
    values, vectors = torch.linalg.eigh(half @ half.mT)
    values = values.clamp_min(1e-300)
    g: Tensor = (vectors * values.pow(0.5 * share)[:, None, :]) @ vectors.mT
    return g, float(0.5 * share * values.log().abs().max())


def full_rank(a: Tensor) -> Tensor:
    """Which of the (batch, n, n) second moments have full rank, (batch,)."""
    values: Tensor = torch.linalg.eigvalsh(a)
    return values[:, 0] > FLOOR * values[:, -1].clamp_min(1e-300)
