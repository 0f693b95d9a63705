"""The time grid whose steps have equal length in space: proper time."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from gaugefix.errors import FieldError
from gaugefix.ode.field import Field
from gaugefix.ode.grid import redistribute
from gaugefix.ode.solver import solve, uniform_times

_CELLS = 128


def equal_lengths(field: Field, x0: Tensor, steps: int = 8, interval: tuple[float, float] = (0.0, 1.0)) -> Tensor:
    """Return the grid on which the solution moves as far in each step as in every other: constant speed.

    Far is the root mean square over the inputs, so that ∫ (E|f|²)^{1/2} dt is shared equally; along a single path that
    is its proper time. This is a choice of coordinate, not a gain of accuracy: a solver's error depends on how a path
    bends, and on what becomes of the error later. On trained fields it is larger than in equal steps
    (docs/neural_ode.md); for accuracy take :func:`equidistribute`.

    Args:
        field: f(t, x) → dx/dt; its parameters are not touched.
        x0: inputs, shape (points, …).
        steps: N.
        interval: t₀ and t₁.

    Returns:
        Times, shape (N + 1,), of the dtype of ``x0``; the first is t₀, the last t₁.

    Raises:
        FieldError: less than one step, or speeds that are not finite.

    Example:
        >>> equal_lengths(lambda t, x: 2 * t * torch.ones_like(x), torch.zeros(1, 1).double(), steps=4)
        tensor([0.0000, 0.5000, 0.7071, 0.8660, 1.0000], dtype=torch.float64)
    """
    cells = max(_CELLS, 16 * steps)
    times, x, lengths = uniform_times(cells, interval).to(x0), x0.detach(), []
    with torch.no_grad():
        for start, end in itertools.pairwise(times):
            moved = solve(field, x, torch.stack([start, end]), "rk4")
            lengths.append((moved - x).square().mean().sqrt())
            x = moved
    density = torch.stack(lengths) / times.diff()
    if not bool(density.isfinite().all()):
        raise FieldError(f"Expected finite speeds for field, got {float(density[~density.isfinite()][0])}.")
    # where nothing moves no clock is better than another: there equal steps
    least = torch.finfo(density.dtype).eps * density.max()
    return redistribute(times, density.clamp(min=float(least)) if bool(least > 0) else torch.ones_like(density), steps)
