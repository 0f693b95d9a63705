"""Velocities along a trajectory, and the integral over time that all terms share."""

from __future__ import annotations

import torch
from torch import Tensor

from gaugefix.errors import FieldError
from gaugefix.ode.field import Field


def along(field: Field, times: Tensor, states: Tensor) -> Tensor:
    """Return the velocities at the points of a trajectory.

    Args:
        field: f(t, x) → (..., n).
        times: shape (times,), rising.
        states: shape (times, ..., n), as ``odeint`` returns them.

    Returns:
        Shape (times, ..., n).

    Raises:
        FieldError: fewer than two times, times that do not rise, or shapes that do not fit.
    """
    check_trajectory(times, states)
    velocities = torch.stack([field(t, x) for t, x in zip(times, states, strict=True)])
    if velocities.shape != states.shape:
        raise FieldError(
            f"Expected velocities of shape {tuple(states.shape[1:])} for field, got {tuple(velocities.shape[1:])}. "
            "Pass the field that the trajectory was integrated with."
        )
    return velocities


def check_trajectory(times: Tensor, states: Tensor) -> None:
    """Raise a FieldError if times (times,) and states (times, ..., n) are not a trajectory."""
    if times.ndim != 1 or len(times) < 2 or not bool((times.diff() > 0).all()):
        raise FieldError(f"Expected two or more rising times for times, got {times.tolist()}. Integrate forward.")
    if states.ndim < 2 or len(states) != len(times):
        raise FieldError(
            f"Expected shape ({len(times)}, ..., n) for states, got {tuple(states.shape)}. "
            "Pass what odeint returned for these times."
        )


def integral(values: Tensor, times: Tensor) -> Tensor:
    """Return ∫ values dt by the trapezoidal rule over the first axis."""
    return torch.trapezoid(values, times, dim=0)
