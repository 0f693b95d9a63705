"""The closed form of minimal norm for GL blocks."""

from __future__ import annotations

import torch
from torch import Tensor

from gaugefix.slices.parallel import over_batch

FLOOR = 1e-12
"""Smallest ratio of eigenvalues of a second moment that counts as full rank."""
_SQUARED = 1e-8
"""Smallest ratio of s² up to which they are taken as eigenvalues of LᵀBL; below it the singular values of LᵀK."""


def balance_blocks(
    a: Tensor, b: Tensor, share: Tensor | None = None, regular: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Solve gAgᵀ = g⁻ᵀBg⁻¹ with g symmetric positive, for (batch, n, n) second moments A and B.

    With A = LLᵀ, B = KKᵀ and LᵀK = U s Vᵀ: h = s^{1/2} Uᵀ L⁻¹ brings both to diag(s), M = hᵀh is the geometric mean of
    A⁻¹ and B, and g = M^{1/2}, the symmetric factor of h (MATH §3; Bhatia, *Positive Definite Matrices*, ch. 4). U and
    s² are the eigenvectors and eigenvalues of LᵀBL, which is cheaper than the singular values. Rank-deficient blocks
    (LoRA at initialisation has B = 0) are left alone.

    Args:
        a: Σ PPᵀ over vectors, float64.
        b: Σ PPᵀ over covectors, float64.
        share: (batch,) part of the way to go, g = M^{share/2}: a half where vectors and covectors are legs of one
            parameter, which the other end moves too. All of it by default.
        regular: (batch,) blocks to solve; those of full rank by default.

    Returns:
        g (batch, n, n) and the largest |log| of its eigenvalues, (batch,).
    """
    share = torch.ones_like(a[:, 0, 0]) if share is None else share
    wanted = torch.ones_like(share, dtype=torch.bool) if regular is None else regular
    g, size = over_batch(_balance, a, b, share, wanted)
    return g, size


def full_rank(a: Tensor) -> Tensor:
    """Which of the (batch, n, n) second moments have full rank, (batch,)."""
    (full,) = over_batch(lambda part: (_factor(part)[2],), a)
    return full


def _balance(a: Tensor, b: Tensor, share: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    low, inverse, full = _factor(a)
    full &= wanted
    b = torch.where(full[:, None, None], b, eye)
    squares, u = torch.linalg.eigh(low.mT @ b @ low)
    # 1/λ_min(B) ≤ tr B⁻¹ = tr LᵀL (LᵀBL)⁻¹: a bound that costs nothing, and eigenvalues where it does not decide
    spread = ((low @ u).square().sum(-2) / squares.clamp_min(1e-300)).sum(-1) * _trace(b)
    unsure = full & ~((squares[:, 0] > 0) & (spread * FLOOR < 1.0))
    if bool(unsure.any()):
        full[unsure] = _by_eigenvalues(b[unsure])
    s = squares.clamp_min(1e-300).sqrt()
    close = full & (squares[:, 0] < _SQUARED * squares[:, -1])
    if bool(close.any()):
        high = torch.linalg.cholesky_ex(b[close])[0]
        u[close], s[close], _ = torch.linalg.svd(low[close].mT @ high)
    half = s.clamp_min(1e-300).sqrt()[:, :, None] * (u.mT @ inverse)
    g, size = _symmetric_factor(torch.where(full[:, None, None], half, eye), share)
    keep = ~full[:, None, None]
    return torch.where(keep, eye, g), torch.where(full, size, 0.0)


def _factor(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """L, L⁻¹ and whether the rank is full; the unit matrix where it is not."""
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device).expand_as(a)
    low, info = torch.linalg.cholesky_ex(a)
    full = info == 0
    low = torch.where(full[:, None, None], low, eye)
    inverse = torch.linalg.solve_triangular(low, eye, upper=False)
    # 1/λ_min ≤ tr A⁻¹ = ‖L⁻¹‖²: enough where it is small
    unsure = full & ~(inverse.square().sum((-2, -1)) * _trace(a) * FLOOR < 1.0)
    if bool(unsure.any()):
        full[unsure] = _by_eigenvalues(a[unsure])
        low = torch.where(full[:, None, None], low, eye)
        inverse = torch.where(full[:, None, None], inverse, eye)
    return low, inverse, full


def _by_eigenvalues(a: Tensor) -> Tensor:
    values: Tensor = torch.linalg.eigvalsh(a)
    return values[:, 0] > FLOOR * values[:, -1].clamp_min(1e-300)


def _trace(a: Tensor) -> Tensor:
    return a.diagonal(dim1=-2, dim2=-1).sum(-1)


def _symmetric_factor(h: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """(hᵀh)^{share/2}, and the largest |log| of its eigenvalues."""
    values, vectors = torch.linalg.eigh(h.mT @ h)
    values = values.clamp_min(1e-300)
    powers = values.pow(0.5 * share[:, None])
    return (vectors * powers[:, None, :]) @ vectors.mT, 0.5 * share * values.log().abs().amax(-1)
