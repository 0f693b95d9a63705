"""A smooth change of time that keeps both ends, with coefficients to be fitted."""

from __future__ import annotations

import torch
from torch import Tensor

_ORDER = 24


def clock(coefficients: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Return τ(s) and τ′(s) on [0, 1], with τ′ ∝ exp(Σ_k a_k cos(kπs)/k) and τ(0) = 0, τ(1) = 1.

    Positive for all coefficients, so every one gives a diffeomorphism, and each diffeomorphism that is smooth enough is
    a limit of these. The integral is Gauss–Legendre's of order 24, to rounding for coefficients of order one.

    Args:
        coefficients: a, shape (waves,).
        s: shape (), in [0, 1].

    Returns:
        τ and τ′, shape () each.

    Example:
        >>> clock(torch.zeros(3), torch.tensor(0.25))
        (tensor(0.2500), tensor(1.))
    """
    nodes, weights = _gauss_legendre(s)
    ladder = torch.pi * torch.arange(1, len(coefficients) + 1).to(s)

    def rate(at: Tensor) -> Tensor:
        return torch.exp(torch.cos(at[..., None] * ladder) @ (coefficients * torch.pi / ladder))

    total = (weights * rate(nodes)).sum()
    return s * (weights * rate(s * nodes)).sum() / total, rate(s) / total


def _gauss_legendre(like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1], from the eigenvectors of the Jacobi matrix."""
    k = torch.arange(1, _ORDER, dtype=torch.float64)
    jacobi = torch.diag(k / (4 * k * k - 1).sqrt(), 1)
    nodes, rows = torch.linalg.eigh(jacobi + jacobi.mT)
    return ((nodes + 1) / 2).to(like), rows[0].square().to(like)
