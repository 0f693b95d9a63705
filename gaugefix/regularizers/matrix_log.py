"""Logarithms of symmetric matrices and their derivatives."""

from __future__ import annotations

import torch
from torch import Tensor

_FLOOR = 1e-12
"""Smallest ratio of eigenvalues that counts as full rank, in float64."""


class Eigen:
    """The eigenvalues and vectors of positive (batch, n, n) matrices, from which logarithms and slopes follow.

    Args:
        matrices: symmetric. The logarithm of one without full rank means nothing: it is finite, and to be left out.

    Attributes:
        full: (batch,) which of them have full rank.
    """

    def __init__(self, matrices: Tensor) -> None:
        floor = _FLOOR if matrices.dtype == torch.float64 else 1e-6
        values, self.vectors = torch.linalg.eigh(matrices)
        self.full = values[:, 0] > floor * values[:, -1]
        self.values = values.clamp_min((floor * values[:, -1:]).clamp_min(1e-30))

    def log(self) -> Tensor:
        """Return log S."""
        log: Tensor = (self.vectors * self.values.log()[:, None, :]) @ self.vectors.mT
        return log

    def log_slope(self, slope: Tensor) -> Tensor:
        """Return the derivative of ⟨slope, log S⟩ by S, symmetric (Daleckii and Krein); ``slope`` is symmetric.

        With S = U λ Uᵀ it is U (Γ ∘ UᵀXU) Uᵀ, Γ_ij = (log λ_i − log λ_j)/(λ_i − λ_j), and 1/λ_i where they coincide.
        """
        rows, columns = self.values[:, :, None], self.values[:, None, :]
        low, high = torch.minimum(rows, columns), torch.maximum(rows, columns)
        excess = (high - low) / low
        divided = torch.where(excess > 0.0, excess.log1p() / torch.where(excess > 0.0, excess, 1.0), 1.0) / low
        found: Tensor = self.vectors @ (divided * (self.vectors.mT @ slope @ self.vectors)) @ self.vectors.mT
        return found


class _Log(torch.autograd.Function):
    """log S; its derivative stays finite where eigenvalues coincide, which that of eigh does not."""

    @staticmethod
    def forward(ctx, a: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.eigen = Eigen(a)
        return ctx.eigen.log()  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx, slope: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return ctx.eigen.log_slope(0.5 * (slope + slope.mT))  # type: ignore[no-any-return]


def matrix_log(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return log S of positive (batch, n, n) matrices, differentiable, and which of them have full rank, (batch,)."""
    log: Tensor = _Log.apply(a)  # type: ignore[no-untyped-call]
    return log, Eigen(a.detach()).full
