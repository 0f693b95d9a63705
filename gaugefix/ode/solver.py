"""Fixed-step solvers: torchdiffeq's, and the same sums with stages that are known in advance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gaugefix.errors import FieldError, did_you_mean


class Tableau(NamedTuple):
    """An explicit Runge–Kutta method, as torchdiffeq has it.

    Stage i is at the time t + c_i h and the state x + h Σ_j a_ij k_j; a step adds h Σ_i b_i k_i.
    """

    order: int
    times: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    sums: tuple[float, ...]


METHODS = {
    "euler": Tableau(1, (0.0,), ((),), (1.0,)),
    "midpoint": Tableau(2, (0.0, 0.5), ((), (0.5,)), (0.0, 1.0)),
    # the 3/8 rule, which torchdiffeq calls rk4
    "rk4": Tableau(
        4, (0.0, 1 / 3, 2 / 3, 1.0), ((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)), (1 / 8, 3 / 8, 3 / 8, 1 / 8)
    ),
}
"""What is known of torchdiffeq's fixed-step methods."""


def method_of(name: str) -> Tableau:
    """Return a fixed-step method; a step of length h has an error of h^{order + 1}.

    Raises:
        FieldError: an unknown method, or one that is adaptive and chooses its steps itself.
    """
    if name not in METHODS:
        raise FieldError(
            f"Expected a fixed-step method for method, got {name!r}. {did_you_mean(name, METHODS)} "
            "Adaptive methods choose their own steps and gain nothing."
        )
    return METHODS[name]


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


def stage_times(times: Tensor, method: str) -> Tensor:
    """Return the times at which a method asks for the velocity, shape (steps, stages).

    Args:
        times: of the steps, shape (steps + 1,).
        method: see :data:`METHODS`.
    """
    fractions = torch.tensor(method_of(method).times, dtype=times.dtype, device=times.device)
    return torch.lerp(times[:-1, None], times[1:, None], fractions)


def solve_stages(velocity: Callable[[int, int, Tensor], Tensor], x: Tensor, times: Tensor, method: str) -> Tensor:
    """Return what :func:`solve` does, from a velocity that is asked by the numbers of step and stage.

    For fields whose dependence on time is worth working out for all stages at once, at :func:`stage_times`.

    Args:
        velocity: (step, stage, x) → dx/dt.
        x: the state at the first time.
        times: shape (steps + 1,).
        method: see :data:`METHODS`.

    Example:
        >>> solve_stages(lambda k, i, x: -x, torch.ones(1), torch.linspace(0, 1, 9), "rk4")
        tensor([0.3679])
    """
    _, _, stages, sums = method_of(method)
    for k, h in enumerate(times.diff()):
        found: list[Tensor] = []
        for i, row in enumerate(stages):
            found.append(velocity(k, i, _add(x, h, row, found)))
        x = _add(x, h, sums, found)
    return x


def _add(x: Tensor, h: Tensor, weights: tuple[float, ...], velocities: list[Tensor]) -> Tensor:
    for weight, velocity in zip(weights, velocities, strict=True):
        if weight:
            x = x + (h * weight) * velocity
    return x


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
