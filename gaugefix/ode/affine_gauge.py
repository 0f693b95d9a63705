"""Affine changes of the state that depend on time: the gauge group of a linear neural ODE."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import vmap

from gaugefix.errors import FieldError


class AffineGauge(nn.Module):
    """x̃ = g(t) x + c(t), as a diffeomorphism of spacetime that leaves time alone.

    As matrices on (x, 1) these are the *frames* G = [[g, c], [0, 1]], which multiply.

    Args:
        matrix: g, from t of shape () to shape (n, n), invertible.
        shift: c, from t to shape (n,); zero by default.

    Raises:
        FieldError: (when evaluated) shapes that do not fit.

    Example:
        >>> gauge = AffineGauge(lambda t: torch.exp(t) * torch.eye(2))
        >>> gauge(torch.tensor(0.0), torch.ones(2))
        (tensor(0.), tensor([1., 1.]))
    """

    def __init__(self, matrix: Callable[[Tensor], Tensor], shift: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.matrix = matrix
        self.shift = shift

    def forward(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (t, g(t) x + c(t)), for t of shape () and x of shape (n,)."""
        frame = self.frame(t)
        return t, frame[:-1, :-1] @ x + frame[:-1, -1]

    def inverse(self, tau: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
        """Return (τ, g⁻¹(ξ − c)), for τ of shape () and ξ of shape (n,)."""
        frame = self.frame(tau)
        return tau, torch.linalg.solve(frame[:-1, :-1], xi - frame[:-1, -1])

    def frame(self, t: Tensor) -> Tensor:
        """Return [[g, c], [0, 1]], shape (n + 1, n + 1), for t of shape ()."""
        return affine_matrix(self.matrix(t), None if self.shift is None else self.shift(t), corner=1.0)

    def frames(self, times: Tensor) -> Tensor:
        """Return the frames at many times (points,), shape (points, n + 1, n + 1)."""
        frames: Tensor = vmap(self.frame)(times)
        return frames


def affine_matrix(matrix: Tensor, vector: Tensor | None, corner: float) -> Tensor:
    """Return [[matrix, vector], [0, corner]], shape (n + 1, n + 1).

    Args:
        matrix: shape (n, n).
        vector: shape (n,), or none for zeros.
        corner: 1 for a group element, 0 for an element of the algebra.

    Raises:
        FieldError: shapes that do not fit.
    """
    n = matrix.shape[-1]
    if matrix.shape != (n, n) or (vector is not None and vector.shape != (n,)):
        raise FieldError(
            f"Expected shapes (n, n) and (n,) for matrix and vector at one time, got {tuple(matrix.shape)} and "
            f"{None if vector is None else tuple(vector.shape)}. Return one matrix for one time."
        )
    column = matrix.new_zeros(n, 1) if vector is None else vector.to(matrix)[:, None]
    row = torch.cat([matrix.new_zeros(1, n), matrix.new_full((1, 1), corner)], 1)
    return torch.cat([torch.cat([matrix, column], 1), row], 0)
