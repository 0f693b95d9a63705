"""A smooth change of time that keeps both ends, with coefficients to be fitted."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

_ORDER = 64


def clock(coefficients: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Return τ(s) and τ′(s) on [0, 1], with τ′ ∝ exp(Σ_k a_k cos(kπs)/k) and τ(0) = 0, τ(1) = 1.

    Positive for all coefficients, so every one gives a diffeomorphism, and each diffeomorphism that is smooth enough is
    a limit of these. The integral is Gauss–Legendre's of order 64: to 1e-9 for eight coefficients of size 2.

    Args:
        coefficients: a, shape (waves,).
        s: any shape, in [0, 1].

    Returns:
        τ and τ′, of the shape of ``s`` each.

    Example:
        >>> clock(torch.zeros(3), torch.tensor(0.25))
        (tensor(0.2500), tensor(1.))
    """
    nodes, weights = (torch.tensor(values, dtype=s.dtype, device=s.device) for values in _gauss_legendre())
    ladder = torch.pi * torch.arange(1, len(coefficients) + 1).to(s)

    def rate(at: Tensor) -> Tensor:
        return torch.exp(torch.cos(at[..., None] * ladder) @ (coefficients * torch.pi / ladder))

    total = (weights * rate(nodes)).sum()
    return s * (weights * rate(s[..., None] * nodes)).sum(-1) / total, rate(s) / total


@functools.cache
def _gauss_legendre() -> tuple[list[float], list[float]]:
    """Nodes and weights on [0, 1]; weights sum to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(_ORDER)
    return ((nodes + 1) / 2).tolist(), (weights / 2).tolist()
