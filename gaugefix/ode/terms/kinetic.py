"""Kinetic energy of the flow."""

from __future__ import annotations

from torch import Tensor

from gaugefix.ode.field import Field
from gaugefix.ode.terms.trajectory import along, integral


def kinetic(field: Field, times: Tensor, states: Tensor, relative: bool = False) -> Tensor:
    """Return T ∫ E|f|² dt, the kinetic energy; at least E|x(T) − x(0)|².

    As a gauge condition it is that of the geodesic: straight paths at constant speed. It is a sum of three parts, none
    negative: the displacement E|x(T) − x(0)|², which no spacetime diffeomorphism with fixed ends changes, the bending
    E[length² − displacement²] and the pacing, :func:`speed_variance`. It also falls when the state is scaled down,
    which straightens nothing. ``relative=True`` gives log of the ratio to the displacement, which is blind to that, and
    0 at the minimum. (The penalty is that of RNODE, arXiv 2002.02798.)

    Args:
        field: f(t, x) → (..., n).
        times: shape (times,), from 0 to T.
        states: shape (times, ..., n), a solution; E is the mean over the axes between.
        relative: whether to return log (energy / displacement²).

    Returns:
        Shape (), differentiable; the time integral is by the trapezoidal rule.

    Raises:
        FieldError: shapes or times that do not fit.

    Example:
        >>> import torch
        >>> times = torch.linspace(0, 2, 5)
        >>> kinetic(lambda t, x: 0 * x + 3, times, 3 * times[:, None, None])
        tensor(36.)
    """
    speed = along(field, times, states).square().sum(-1)
    energy = (times[-1] - times[0]) * integral(speed, times).mean()
    if not relative:
        return energy
    return (energy / (states[-1] - states[0]).square().sum(-1).mean()).log()
