"""Solutions along which terms are known."""

import torch
from torchdiffeq import odeint

from tests.ode.fields import inputs, pendulum


def times(intervals, end=1.0):
    return torch.linspace(0, end, intervals + 1, dtype=torch.float64)


def solve(field, t, x):
    return odeint(field, x, t, method="dopri8", rtol=1e-10, atol=1e-12)


def swing(intervals=32):
    """A trajectory of the pendulum: field, times, states."""
    return pendulum, times(intervals), solve(pendulum, times(intervals), inputs())


def decay(t, x):
    """x(t) = x₀ e^{−t}."""
    return -x
