"""GL blocks nearest to a reference: minimise ‖gP − P₀‖² + ‖g⁻ᵀQ − Q₀‖² per block.

All that is needed are the second moments A = PPᵀ, B = QQᵀ and C = P₀Pᵀ, E = Q₀Qᵀ. With g ← e^X g the gradient is
G = (A − C) − (B − Eᵀ), and the Gauss–Newton step solves XA + BX = −G in the eigenbases of A and B. A step is taken only
where it decreases the distance.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gaugefix.slices.parallel import over_batch

_STEPS = 300
_HALVINGS = 12


def nearest_blocks(a: Tensor, b: Tensor, c: Tensor, e: Tensor, b_goal: Tensor) -> Tensor:
    """Return g, (batch, n, n), at a local minimum that is no further away than the unit matrix.

    It starts from the best of: the unit matrix, the orthogonal matrix nearest to both (two-sided Procrustes), the
    least-squares solution CA⁻¹ of one side alone, and that of both, min ‖gP − P₀‖² + ‖Q − gᵀQ₀‖², which is linear. The
    last one is exact if the reference lies on the orbit, whatever the ranks.

    Args:
        a: Σ PPᵀ over vectors, (batch, n, n), float64.
        b: Σ QQᵀ over covectors.
        c: Σ P₀Pᵀ over vectors.
        e: Σ Q₀Qᵀ over covectors.
        b_goal: Σ Q₀Q₀ᵀ over covectors.
    """
    (g,) = over_batch(_solve, a, b, c, e, b_goal)
    return g


def nearest_orthogonal(c: Tensor) -> Tensor:
    """Return the orthogonal matrices O with the largest ⟨O, C⟩, (batch, n, n): the polar factor of C."""
    u, _, vh = torch.linalg.svd(c)
    turn: Tensor = u @ vh
    return turn


def _solve(a: Tensor, b: Tensor, c: Tensor, e: Tensor, b_goal: Tensor) -> tuple[Tensor]:
    g = _start(a, b, c, e, b_goal)
    value = _distance(g, a, b, c, e)
    for _ in range(_STEPS):
        x = _direction(g, a, b, c, e)
        length = torch.ones_like(value)
        moved = torch.zeros_like(value, dtype=torch.bool)
        for _ in range(_HALVINGS):
            trial = torch.linalg.matrix_exp(length[:, None, None] * x) @ g
            new = _distance(trial, a, b, c, e)
            better = ~moved & (new < value)
            g = torch.where(better[:, None, None], trial, g)
            value = torch.where(better, new, value)
            moved |= better
            if bool(moved.all()):
                break
            length = torch.where(moved, length, 0.5 * length)
        if not bool((moved & (x.abs().amax((-2, -1)) > 1e-11)).any()):
            break
    return (g,)


def _start(a: Tensor, b: Tensor, c: Tensor, e: Tensor, b_goal: Tensor) -> Tensor:
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device).expand_as(a)
    one_side = torch.linalg.solve_ex(a, c, left=False)[0]
    both = eye + _sylvester(b_goal, a, c + e - b_goal - a)
    best, lowest = eye, _distance(eye, a, b, c, e)
    for g in (nearest_orthogonal(c + e), one_side, both):
        value = _distance(g, a, b, c, e)
        better = value < lowest  # not so where it is NaN
        best, lowest = torch.where(better[:, None, None], g, best), torch.where(better, value, lowest)
    return best


def _sylvester(b: Tensor, a: Tensor, right: Tensor) -> Tensor:
    """The smallest X with BX + XA = right, for positive semidefinite A and B."""
    alpha, u = torch.linalg.eigh((a + a.mT) / 2)
    beta, v = torch.linalg.eigh((b + b.mT) / 2)
    sums = beta[:, :, None] + alpha[:, None, :]
    seen = sums > 1e-12 * sums.amax((-2, -1), keepdim=True)
    inner = v.mT @ right @ u
    x: Tensor = v @ torch.where(seen, inner / torch.where(seen, sums, 1.0), 0.0) @ u.mT
    return x


def _distance(g: Tensor, a: Tensor, b: Tensor, c: Tensor, e: Tensor) -> Tensor:
    """Squared distance up to a constant, (batch,); infinite for a singular g."""
    h, info = torch.linalg.inv_ex(g)
    h = h.mT
    value = ((g @ a - 2.0 * c) * g).sum((-2, -1)) + ((h @ b - 2.0 * e) * h).sum((-2, -1))
    return torch.where((info == 0) & value.isfinite(), value, torch.inf)


def _direction(g: Tensor, a: Tensor, b: Tensor, c: Tensor, e: Tensor) -> Tensor:
    h = torch.linalg.inv_ex(g)[0].mT
    a, b = g @ a @ g.mT, h @ b @ h.mT
    return _sylvester(b, a, -(a - c @ g.mT) + (b - (e @ h.mT).mT))
