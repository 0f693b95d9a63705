"""Anderson mixing: a fixed-point iteration u ← G(u) that looks back.

The next iterate combines the last few values of G so that the combined residual G(u) − u is smallest (Anderson 1965;
Walker and Ni 2011, doi:10.1137/10078356X). It turns the slow linear convergence of alternating projections into that
of a Krylov method.
"""

from __future__ import annotations

import torch
from torch import Tensor


class AndersonMixer:
    """Keeps the last ``depth`` pairs and proposes the next iterate.

    Args:
        depth: number of earlier iterates that are looked at.
    """

    def __init__(self, depth: int = 6) -> None:
        self.depth = depth
        self.points: list[Tensor] = []
        self.values: list[Tensor] = []

    def next(self, point: Tensor, value: Tensor) -> Tensor:
        """Return the next iterate from u and G(u), (n,) each."""
        residual = value - point
        if not bool(torch.isfinite(residual).all()):
            return value
        if self.points and residual.norm() > 2.0 * (self.values[-1] - self.points[-1]).norm():
            self.points, self.values = [], []  # led astray: start again from the plain step
        self.points = [*self.points[-self.depth :], point]
        self.values = [*self.values[-self.depth :], value]
        if len(self.points) == 1:
            return value
        values = torch.stack(self.values).double()
        residuals = values - torch.stack(self.points).double()
        steps = (residuals[1:] - residuals[:-1]).T
        weights = torch.linalg.lstsq(steps, residuals[-1][:, None], driver="gelsd").solution[:, 0]
        mixed = values[-1] - (values[1:] - values[:-1]).T @ weights
        return (mixed if bool(torch.isfinite(mixed).all()) else values[-1]).to(value.dtype)
