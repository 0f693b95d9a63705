"""How unevenly the flow is paced."""

from __future__ import annotations

from torch import Tensor

from gaugefix.ode.field import Field
from gaugefix.ode.terms.trajectory import along, integral


def speed_variance(field: Field, times: Tensor, states: Tensor) -> Tensor:
    """Return T ∫ E(|f| − length/T)² dt = E[T ∫|f|² dt − length²], the pacing part of the kinetic energy.

    It vanishes where every point moves at a speed of its own that does not change: proper time as the clock. As a gauge
    condition it fixes time along each path, and leaves its shape alone.

    Args:
        field: f(t, x) → (..., n).
        times: shape (times,), from 0 to T.
        states: shape (times, ..., n), a solution; E is the mean over the axes between.

    Returns:
        Shape (), differentiable where no speed is 0; the time integrals are by the trapezoidal rule.

    Raises:
        FieldError: shapes or times that do not fit.

    Example:
        >>> import torch
        >>> times = torch.linspace(0, 1, 3)
        >>> speed_variance(lambda t, x: 0 * x + 3, times, 3 * times[:, None, None])
        tensor(0.)
    """
    speed = along(field, times, states).norm(dim=-1)
    duration = times[-1] - times[0]
    mean = integral(speed, times) / duration
    return (duration * integral((speed - mean).square(), times)).mean()
