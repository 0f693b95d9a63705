"""Logarithms of symmetric matrices and their derivatives."""

from __future__ import annotations

import torch
from torch import Tensor

_FLOOR = 1e-12
"""Smallest ratio of eigenvalues that counts as full rank, in float64."""


class _Log(torch.autograd.Function):
    """log S; its derivative stays finite where eigenvalues coincide, which that of eigh does not."""

    @staticmethod
    def forward(ctx, a: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(a)
        values, vectors = _eigen(a)
        return (vectors * values.log()[:, None, :]) @ vectors.mT

    @staticmethod
    def backward(ctx, slope: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return log_slope(ctx.saved_tensors[0], slope)


def matrix_log(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return log S of positive (batch, n, n) matrices, differentiable, and which of them have full rank, (batch,).

    The logarithm of a matrix without full rank means nothing: it is finite, and to be left out.
    """
    with torch.no_grad():
        values = torch.linalg.eigvalsh(a.detach())
        full = values[:, 0] > _floor(a) * values[:, -1]
    log: Tensor = _Log.apply(a)  # type: ignore[no-untyped-call]
    return log, full


def log_slope(a: Tensor, slope: Tensor) -> Tensor:
    """Return the derivative of ⟨slope, log S⟩ by S, symmetric (Daleckii and Krein).

    With S = U λ Uᵀ it is U (Γ ∘ UᵀXU) Uᵀ, Γ_ij = (log λ_i − log λ_j)/(λ_i − λ_j), and 1/λ_i where they coincide.
    """
    values, vectors = _eigen(a)
    low, high = (
        torch.minimum(values[:, :, None], values[:, None, :]),
        torch.maximum(values[:, :, None], values[:, None, :]),
    )
    excess = (high - low) / low
    divided = torch.where(excess > 0.0, excess.log1p() / torch.where(excess > 0.0, excess, 1.0), 1.0) / low
    inner = vectors.mT @ (0.5 * (slope + slope.mT)) @ vectors
    return vectors @ (divided * inner) @ vectors.mT


def _eigen(a: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(a)
    return values.clamp_min((_floor(a) * values[:, -1:]).clamp_min(1e-30)), vectors


def _floor(a: Tensor) -> float:
    return _FLOOR if a.dtype == torch.float64 else 1e-6
