"""The gauge of time: which clock a fixed-step solver goes by."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from gaugefix.errors import FieldError, did_you_mean
from gaugefix.ode.equal_lengths import equal_lengths
from gaugefix.ode.equidistribute import equidistribute
from gaugefix.ode.field import Field
from gaugefix.ode.grid import grid_through
from gaugefix.ode.solver import method_of, uniform_times
from gaugefix.ode.warped_field import WarpedField

TimeSlice = Literal["equidistribution", "proper_time"]


class TimeGauge(nn.Module):
    """A clock τ(s), piecewise linear with a knot at each step of a solver, and the slice that fixes it.

    A reparametrisation of time, f̃(s, x) = τ′(s) f(τ(s), x), leaves the flow map from end to end as it is (Theorem 1
    with ξ = x), and each slice is met by one clock only. In equal steps of s a solver steps on t_k = τ(s_k): for a
    piecewise-linear clock the warped field in equal steps and the field itself on the grid (t_k) are the same sums.
    So there are two ways to use it, with the same result:

    * a grid, ``odeint(field, x, t, method=…, options=gauge.options)``;
    * a field, ``gauge.warp(field)`` (:class:`WarpedField`).

    Slices:

    * ``"equidistribution"``: each step adds the same to the final error (:func:`equidistribute`). More accurate for
      the same number of evaluations;
    * ``"proper_time"``: each step has the same length in space (:func:`equal_lengths`). A coordinate choice, which
      costs accuracy.

    Equal steps until :meth:`fit_` is called; adaptive solvers find their own steps and gain nothing.

    Args:
        slice: which condition.
        method: the solver's, ``"euler"``, ``"midpoint"`` or ``"rk4"``; proper time does not depend on it.
        steps: of the solver, N.
        interval: t₀ and t₁.

    Attributes:
        times: t_0 < … < t_N, a buffer of shape (N + 1,), float64; in checkpoints.

    Raises:
        FieldError: an unknown slice or method, less than one step, or no interval.

    Example:
        >>> gauge = TimeGauge("equidistribution", "euler", steps=3)
        >>> gauge = gauge.fit_(lambda t, x: -4 * t**3 * x, torch.ones(1, 1).double())
        >>> [round(float(t), 2) for t in gauge.times]
        [0.0, 0.56, 0.77, 1.0]
    """

    times: Tensor

    def __init__(
        self,
        slice: TimeSlice = "equidistribution",
        method: str = "rk4",
        steps: int = 8,
        interval: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        super().__init__()
        if slice not in get_args(TimeSlice):
            raise FieldError(
                f"Expected a slice of time for slice, got {slice!r}. {did_you_mean(slice, get_args(TimeSlice))}"
            )
        method_of(method)
        self.slice, self.method, self.steps = slice, method, steps
        self.interval = (float(interval[0]), float(interval[1]))
        self.register_buffer("times", uniform_times(steps, interval))

    def fit_(self, field: Field, x0: Tensor) -> TimeGauge:
        """Move the clock onto the slice, for a field and inputs; on the slice already, it stays.

        Args:
            field: f(t, x) → dx/dt, whose parameters are not touched; in evaluation mode.
            x0: inputs, shape (points, …): some dozens, float32 or float64.

        Returns:
            Itself.

        Raises:
            FieldError: as :func:`equidistribute` and :func:`equal_lengths`.
        """
        if self.slice == "proper_time":
            times = equal_lengths(field, x0, self.steps, self.interval)
        else:
            start = self.times.to(x0)
            times = equidistribute(field, x0, self.method, self.steps, self.interval, start=start)
        if not bool((times.diff() > 0).all()):
            raise FieldError(
                f"Expected steps that {times.dtype} can tell apart for field, got times {times.tolist()}. "
                "Take fewer steps, or float64."
            )
        self.times.copy_(times)
        self.times[0], self.times[-1] = self.interval
        return self

    @property
    def options(self) -> dict[str, Any]:
        """What ``odeint`` takes as ``options`` together with ``method``, to step on the grid."""
        return {"grid_constructor": self.grid_constructor}

    def grid_constructor(self, field: Any, x: Tensor, times: Tensor) -> Tensor:
        """Return the grid, for torchdiffeq: knots between the first and the last time asked for, and all of these.

        Args:
            field: not looked at.
            x: not looked at.
            times: as ``odeint`` has them, also backward, as in ``odeint_adjoint``.
        """
        return grid_through(self.times, times)

    def clock(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Return τ(s) and τ′(s), shape () each; on a knot those of the segment to its right.

        Args:
            s: shape (), in the interval; its dtype decides.
        """
        knots, times = self.knots.to(s), self.times.to(s)
        segment = (s.detach() >= knots[1:-1]).sum()
        rates = times.diff() / knots.diff()
        rate = rates[segment]
        return times[segment] + (s - knots[segment]) * rate, rate

    @property
    def knots(self) -> Tensor:
        """Where the clock has its knots, s_0 < … < s_N in equal distances, shape (N + 1,)."""
        return torch.linspace(*self.interval, self.steps + 1, dtype=self.times.dtype, device=self.times.device)

    def warp(self, field: Field) -> WarpedField:
        """Return f̃(s, x) = τ′(s) f(τ(s), x), which shares this clock and follows it."""
        return WarpedField(field, self)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"slice={self.slice!r}, method={self.method!r}, steps={self.steps}, interval={self.interval}"
