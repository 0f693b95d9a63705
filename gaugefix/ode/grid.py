"""Time grids: moved so that every step carries the same share, and handed to a solver."""

from __future__ import annotations

import torch
from torch import Tensor


def redistribute(times: Tensor, density: Tensor, steps: int) -> Tensor:
    """Return the times between which a density has equal integrals: steps where it is high are short.

    Args:
        times: edges of the cells, increasing, shape (cells + 1,).
        density: positive, constant in each cell, shape (cells,); its unit does not matter.
        steps: number of new cells.

    Returns:
        New edges, shape (steps + 1,); the first and last are those of ``times``.

    Example:
        >>> redistribute(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([3.0, 1.0]), 2)
        tensor([0.0000, 0.6667, 2.0000])
    """
    mass = torch.cat([density.new_zeros(1), (density * times.diff()).cumsum(0)])
    wanted = mass[-1] * torch.arange(1, steps).to(mass) / steps
    cell = (torch.searchsorted(mass, wanted) - 1).clamp(0, len(density) - 1)
    inner = times[cell] + (wanted - mass[cell]) / density[cell]
    return torch.cat([times[:1], inner, times[-1:]])


def grid_through(knots: Tensor, times: Tensor) -> Tensor:
    """Return the grid of a solver that is asked for some times and has to step on some knots.

    It has all knots between the first and the last time, and all times, so that nothing is interpolated. A time that
    differs from a knot by rounding is taken to be that knot.

    Args:
        knots: increasing, shape (knots,).
        times: as ``odeint`` has them, increasing or decreasing, shape (times,).

    Returns:
        Monotone as ``times``, from its first to its last, with its dtype.

    Example:
        >>> grid_through(torch.tensor([0.0, 0.3, 1.0]), torch.tensor([1.0, 0.5, 0.0]))
        tensor([1.0000, 0.5000, 0.3000, 0.0000])
    """
    knots = knots.detach().to(times)
    ends = torch.stack([times[0], times[-1]])
    rounding = 8 * torch.finfo(times.dtype).eps * torch.maximum(ends.abs().max(), knots.abs().max())
    within = (knots > ends.min() + rounding) & (knots < ends.max() - rounding)
    knots, inner = knots[within], times[1:-1]
    apart = ((inner[:, None] - knots).abs() > rounding).all(1)
    middle = torch.cat([inner[apart], knots]).sort(descending=bool(ends[0] > ends[1])).values
    return torch.cat([ends[:1], middle, ends[1:]])
