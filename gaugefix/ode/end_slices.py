"""Check that a diffeomorphism of spacetime leaves both end slices in place."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import vmap

from gaugefix.errors import DiffeomorphismError
from gaugefix.ode.field import Diffeomorphism, name_point


def check_ends(
    diffeo: Diffeomorphism, points: Tensor, interval: tuple[float, float] = (0.0, 1.0), tolerance: float | None = None
) -> None:
    """Check ψ(t₀, x) = (t₀, x) and ψ(t₁, x) = (t₁, x) at some points: the condition of Theorem 1.

    Args:
        diffeo: ψ(t, x) → (τ, ξ), for one point.
        points: x, shape (points, n); take inputs for t₀ and outputs of the flow for t₁, or both for both.
        interval: t₀ and t₁.
        tolerance: largest distance, relative to 1 + |x|; by default 64 times the rounding error of ``points``.

    Raises:
        DiffeomorphismError: some point moves; the message says on which slice, where and how far.

    Example:
        >>> check_ends(lambda t, x: (t, x * (1 + t * (1 - t))), torch.randn(5, 2))
    """
    limit = 64 * torch.finfo(points.dtype).eps if tolerance is None else tolerance
    for end in interval:
        t = points.new_full((len(points),), end)
        tau, xi = vmap(diffeo)(t, points)
        off = torch.maximum((tau - t).abs(), (xi - points).norm(dim=-1))
        moved = ~(off <= limit * (1 + abs(end) + points.norm(dim=-1)))
        if bool(moved.any()):
            raise DiffeomorphismError(
                f"Expected the identity on the end slice t = {end:g} for diffeo, got a point that moves by "
                f"{float(off[moved][0].detach()):.1e} at {name_point(t, points, moved)}. Let it tend to the identity "
                "there; otherwise the flow map changes by what the ends do."
            )
