"""A time grid that is even by a given clock, and goes through the times of the outputs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gaugefix.errors import FieldError


def output_grid(times: Tensor, knots: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Return a grid of ``steps`` steps, and where in it the given times are.

    The clock s runs evenly from each knot to the next, s(knot k) = k/K. An interval between two times gets as many
    steps as its share of s, rounded by largest remainders, but at least one; they are equal by s.

    Args:
        times: rising, from the first knot to the last, shape (times,).
        knots: rising, shape (K + 1,).
        steps: at least as many as there are intervals.

    Returns:
        The grid, (steps + 1,) float64, and the places of ``times`` in it, (times,) int64.

    Raises:
        FieldError: times or knots that do not rise or end elsewhere, or too few steps.

    Example:
        >>> grid, places = output_grid(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.0, 0.5, 0.75, 1.0]), 3)
        >>> grid, places.tolist()
        (tensor([0.0000, 0.5000, 0.7500, 1.0000], dtype=torch.float64), [0, 1, 3])
    """
    t, k = (values.detach().double().cpu().numpy() for values in (times, knots))
    rise = min(len(t), len(k)) > 1 and bool((np.diff(t) > 0).all() and (np.diff(k) > 0).all())
    if not rise or abs(t[0] - k[0]) > 1e-6 or abs(t[-1] - k[-1]) > 1e-6:
        raise FieldError(
            f"Expected rising knots from {float(t[0]):g} to {float(t[-1]):g} for knots, got {k.round(4).tolist()}."
        )
    if steps < len(t) - 1:
        raise FieldError(f"Expected at least {len(t) - 1} steps for steps, one for each interval, got {steps}.")
    even = np.linspace(0, 1, len(k))
    clock = np.interp(t, k, even)
    clock[[0, -1]] = 0, 1
    counts = shares(np.diff(clock), steps)
    pieces = [t[:1]]
    for start, end, count in zip(range(len(counts)), range(1, len(t)), counts, strict=True):
        inside = np.interp(np.linspace(clock[start], clock[end], count + 1)[1:-1], even, k)
        pieces += [inside, t[end : end + 1]]
    places = np.concatenate([[0], np.cumsum(counts)])
    return torch.from_numpy(np.concatenate(pieces)), torch.from_numpy(places)


def shares(weights: np.ndarray, total: int) -> np.ndarray:
    """Return integers, none below 1, that sum to ``total`` and are about proportional to ``weights``."""
    ideal = weights / weights.sum() * total
    counts: np.ndarray = np.maximum(1, np.floor(ideal)).astype(np.int64)
    while (left := total - int(counts.sum())) != 0:
        gap = ideal - counts
        if left > 0:
            counts[gap.argmax()] += 1
        else:
            counts[np.where(counts > 1, gap, np.inf).argmin()] -= 1
    return counts
