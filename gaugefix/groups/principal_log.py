"""The real principal logarithm of a batch of matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from gaugefix.errors import GroupError


def principal_log(a: Tensor, symbol: str) -> Tensor:
    """Return the real X with exp(X) = a whose eigenvalues have imaginary parts in (-π, π).

    It exists and is unique if and only if no eigenvalue of ``a`` lies on the closed negative real axis (Higham,
    *Functions of Matrices*, theorem 1.31). Symmetric batches go through ``eigh``. Others go through complex
    eigenvectors, a = V diag(λ) V⁻¹, X = V diag(log λ) V⁻¹; blocks that have no full set of them (a shear) are
    repeated by inverse scaling and squaring. The answer counts only if exp(X) = a.

    Args:
        a: invertible matrices, shape (batch, n, n), float32 or float64; the work is done in float64.
        symbol: the group's symbol, for the message.

    Returns:
        The logarithms, shape (batch, n, n), dtype of ``a``.

    Raises:
        GroupError: some matrix has no real principal logarithm.

    Example:
        >>> shear = torch.tensor([[[1.0, 2.0], [0.0, 1.0]]], dtype=torch.float64)
        >>> principal_log(shear, "GL(2)").round(decimals=9)
        tensor([[[0., 2.],
                 [0., 0.]]], dtype=torch.float64)

    """
    wide = a.double()
    x: Tensor
    eps = a.shape[-1] * torch.finfo(torch.float64).eps
    size = torch.linalg.matrix_norm(wide)
    if bool((torch.linalg.matrix_norm(wide - wide.mT) <= eps * size).all()):
        values, vectors = torch.linalg.eigh(wide)
        x = (vectors * values.log().unsqueeze(-2)) @ vectors.mT
    else:
        x = _by_eigenvectors(wide)
    error = _error(x, wide)
    inexact = ~(error <= 100 * eps)  # so that NaN counts as inexact
    if bool(inexact.any()):
        again = _by_roots(wide[inexact])
        closer = ~(error[inexact] <= _error(again, wide[inexact]))
        x[inexact] = torch.where(closer[:, None, None], again, x[inexact])
        error = _error(x, wide)
    failed = ~(error <= torch.finfo(torch.float64).eps ** 0.5)
    if bool(failed.any()):
        raise GroupError(
            f"Expected an element with a real principal logarithm for {symbol}, got eigenvalues on the negative real "
            f"axis in block {int(failed.nonzero()[0])}. Use a nearer element, or distance where the group defines it."
        )
    return x.to(a.dtype)


def _error(x: Tensor, a: Tensor) -> Tensor:
    """Return ‖exp(x) - a‖_F / ‖a‖_F per block, shape (batch,)."""
    error: Tensor = torch.linalg.matrix_norm(torch.linalg.matrix_exp(x) - a) / torch.linalg.matrix_norm(a)
    return error


def _by_eigenvectors(a: Tensor) -> Tensor:
    values, vectors = torch.linalg.eig(a)
    logs, _ = torch.linalg.solve_ex(vectors, vectors * values.log().unsqueeze(-2), left=False)
    real: Tensor = logs.real
    return real.contiguous()


def _by_roots(a: Tensor) -> Tensor:
    """Inverse scaling and squaring: log a = 2ᵏ log a^(1/2ᵏ), with log(1 + Y) = ∫₀¹ Y (1 + tY)⁻¹ dt near 1.

    Eight Gauss-Legendre nodes give the [8/8] Padé approximant, exact to float64 for ‖Y‖ <= 1/4.
    """
    one = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    root, doublings = a, 0
    while doublings < 40 and bool(((root - one).abs().sum(-2).amax(-1) > 0.25).any()):
        root, doublings = _square_root(root), doublings + 1
    y = root - one
    k = torch.arange(1, 8, dtype=a.dtype)
    jacobi = torch.diag(k / (4 * k * k - 1).sqrt(), 1)
    nodes, rows = torch.linalg.eigh(jacobi + jacobi.mT)
    total = torch.zeros_like(a)
    for node, weight in zip(nodes.tolist(), rows[0].square().tolist(), strict=True):
        total = total + weight * torch.linalg.solve_ex(one + (node + 1) / 2 * y, y)[0]
    return 2.0**doublings * total


def _square_root(a: Tensor) -> Tensor:
    """Denman-Beavers iteration in product form: X → a^(1/2), M → 1."""
    one = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    x, m = a, a
    for _ in range(50):
        inverse = torch.linalg.inv_ex(m)[0]
        x = (x + x @ inverse) / 2
        m = (2 * one + m + inverse) / 4
        distance = (m - one).abs().amax((-2, -1))
        if not bool((distance > 4 * a.shape[-1] * torch.finfo(a.dtype).eps).any()):
            break
    # it converges unless an eigenvalue is on the negative axis; NaN ends the outer loop for that block
    return x.masked_fill(~(distance < 0.25)[:, None, None], torch.nan)
