"""The field of a neural ODE: one hidden layer of tanh that may see the time."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TanhField(nn.Module):
    """dx/dt = W₂ tanh(W₁ (x, t) + b₁) + b₂.

    An invertible affine change of the state, x → Gx + c, goes into W₁, b₁, W₂ and b₂; the column of t stays. tanh is
    odd, so hidden units may change sign and place.

    Args:
        dimension: of the state.
        hidden: units.
        autonomous: whether to leave out t.

    Attributes:
        evaluations: calls so far. Counted here and not on the device, so that nobody waits for it.
    """

    def __init__(self, dimension: int, hidden: int, autonomous: bool = False) -> None:
        super().__init__()
        self.inner = nn.Linear(dimension + (not autonomous), hidden)
        self.outer = nn.Linear(hidden, dimension)
        self.autonomous = autonomous
        self.evaluations = 0

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Return dx/dt, shape (..., dimension), for t of shape () and x of shape (..., dimension)."""
        self.evaluations += 1
        if not self.autonomous:
            x = torch.cat([x, t.to(x).expand(*x.shape[:-1], 1)], -1)
        velocity: Tensor = self.outer(torch.tanh(self.inner(x)))
        return velocity
