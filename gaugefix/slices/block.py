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
    A⁻¹ and B, and g = M^{1/2}, the symmetric factor of h (Bhatia, *Positive Definite Matrices*, ch. 4). U and s²
    are the eigenvectors and eigenvalues of LᵀBL, which is cheaper than the singular values. Rank-deficient blocks (LoRA
    at initialisation has B = 0) are left alone.

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
    low, inverse, full = _factor(a)
    full &= wanted
    b = _or_unit(full, b)
    squares, u = torch.linalg.eigh(low.mT @ b @ low)
    # λ_min(B) ≥ λ_min(LᵀBL)/λ_max(A): a bound that costs nothing, and eigenvalues where it does not decide
    unsure = full & ~(squares[:, 0] > FLOOR * _trace(a) * _trace(b))
    if bool(unsure.any()):
        full[unsure] = _by_eigenvalues(b[unsure])
    s = squares.clamp_min(1e-300).sqrt()
    close = full & (squares[:, 0] < _SQUARED * squares[:, -1])
    if bool(close.any()):
        high = torch.linalg.cholesky_ex(b[close])[0]
        u[close], s[close], _ = torch.linalg.svd(low[close].mT @ high)
    half = (u * s.clamp_min(1e-300).sqrt()[:, None, :]).mT @ inverse
    g, size = _symmetric_factor(_or_unit(full, half), share)
    return _or_unit(full, g), torch.where(full, size, 0.0)


def _factor(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """L, L⁻¹ and whether the rank is full; the unit matrix where it is not."""
    low, info = torch.linalg.cholesky_ex(a)
    full = info == 0
    low = _or_unit(full, low)
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device).expand_as(a)
    inverse = torch.linalg.solve_triangular(low, eye, upper=False)
    # 1/λ_min ≤ tr A⁻¹ = ‖L⁻¹‖²: enough where it is small
    spread = torch.linalg.vector_norm(inverse, dim=(-2, -1)).square() * _trace(a)
    unsure = full & ~(spread * FLOOR < 1.0)
    if bool(unsure.any()):
        full[unsure] = _by_eigenvalues(a[unsure])
        low, inverse = _or_unit(full, low), _or_unit(full, inverse)
    return low, inverse, full


def _or_unit(keep: Tensor, blocks: Tensor) -> Tensor:
    """The unit matrix for blocks that are not kept."""
    if bool(keep.all()):
        return blocks
    eye = torch.eye(blocks.shape[-1], dtype=blocks.dtype, device=blocks.device)
    return torch.where(keep[:, None, None], blocks, eye)


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
