"""Fixed-step solvers: their orders, and torchdiffeq where it is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gaugefix.errors import FieldError, did_you_mean

ORDERS = {"euler": 1, "midpoint": 2, "rk4": 4}
"""Order p of the methods of torchdiffeq: a step of length h has an error of h^{p+1}."""


def order_of(method: str) -> int:
    """Return the order of a fixed-step method.

    Raises:
        FieldError: an unknown method, or one that is adaptive and chooses its steps itself.
    """
    if method not in ORDERS:
        raise FieldError(
            f"Expected a fixed-step method for method, got {method!r}. {did_you_mean(method, ORDERS)} "
            "Adaptive methods choose their own steps and gain nothing."
        )
    return ORDERS[method]


def solve(field: Any, x: Tensor, times: Tensor, method: str) -> Tensor:
    """Return the state at the last of the times, with one step of a fixed-step method from each to the next.

    Args:
        field: f(t, x), as torchdiffeq's ``odeint`` takes it.
        x: the state at the first time, any shape that the field takes.
        times: shape (steps + 1,), monotone.
        method: of torchdiffeq.

    Raises:
        FieldError: torchdiffeq is not installed.
    """
    states: Tensor = solver_of()(field, x, times.to(x), method=method)
    return states[-1]


def solver_of(adjoint: bool = False) -> Callable[..., Tensor]:
    """Return torchdiffeq's ``odeint``, or its ``odeint_adjoint``.

    Raises:
        FieldError: torchdiffeq is not installed.
    """
    try:
        import torchdiffeq
    except ImportError as error:
        raise FieldError("Expected torchdiffeq for method, got none. pip install torchdiffeq.") from error
    solver: Callable[..., Tensor] = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint
    return solver


def uniform_times(steps: int, interval: tuple[float, float]) -> Tensor:
    """Return steps + 1 times in equal distances, float64.

    Raises:
        FieldError: less than one step, or an interval that is none.
    """
    start, end = (float(value) for value in interval)
    if steps < 1 or not start < end:
        raise FieldError(f"Expected steps >= 1 and t0 < t1 for interval, got {steps} and ({start:g}, {end:g}).")
    return torch.linspace(start, end, steps + 1, dtype=torch.float64)
