"""A field by another clock."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from gaugefix.ode.field import Field, one_time
from gaugefix.ode.piecewise import options_through


class Clock(Protocol):
    """A monotone piecewise-linear τ(s) with knots in increasing order."""

    @property
    def knots(self) -> Tensor:
        """Where its rate jumps, with both ends, shape (segments + 1,)."""
        ...

    def clock(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Return τ(s) and τ′(s), on a knot those of the segment to its right."""
        ...


class WarpedField(nn.Module):
    """f̃(s, x) = τ′(s) f(τ(s), x), for a piecewise-linear clock: at a knot, τ′ is that of the segment to its right.

    Its rate jumps at the knots, and a stage of a solver that takes the rate of the wrong side costs an order. So a
    solver has to step on the knots, and its last stage has to stay on its own side of them:
    ``odeint(warped, x, t, method="rk4", options=warped.options("rk4"))``.

    Args:
        field: f(t, x) → (..., n).
        clock: τ, such as a :class:`TimeGauge`; if it is a module, it is a child of this one and in its checkpoints.

    Example:
        >>> import torch
        >>> from gaugefix.ode import TimeGauge
        >>> warped = TimeGauge(steps=4).warp(lambda t, x: t * x)
        >>> warped(torch.tensor(0.5), torch.ones(1))
        tensor([0.5000])
    """

    def __init__(self, field: Field, clock: Clock) -> None:
        super().__init__()
        self.field = field
        self.clock = clock

    def forward(self, s: Tensor, x: Tensor) -> Tensor:
        """Return dx/ds, shape (..., n), for s of shape () and x of shape (..., n)."""
        tau, rate = self.clock.clock(one_time(s, x))
        return rate * self.field(tau, x)

    def options(self, method: str) -> dict[str, Any]:
        """Return what ``odeint`` takes as ``options`` with a method: steps on the knots, and on the right side of them.

        Args:
            method: fixed-step or adaptive.
        """
        return options_through(self, method)

    @property
    def knots(self) -> Tensor:
        """Where it jumps, with both ends, shape (segments + 1,)."""
        return self.clock.knots
