"""Choose the representative of a field's orbit that a given fixed-step solver integrates best."""

from __future__ import annotations

import torch
from torch import Tensor

from gaugefix.errors import FieldError
from gaugefix.ode.field import Field
from gaugefix.ode.gauged_field import Family, Frames, GaugedField
from gaugefix.ode.solver import method_of, solve, solve_stages, stage_times, uniform_times


def fit_gauge(
    field: Field,
    x0: Tensor,
    method: str = "rk4",
    steps: int = 8,
    family: Family = "linear",
    *,
    interval: tuple[float, float] = (0.0, 1.0),
    waves: int = 6,
    clock_waves: int = 8,
    iterations: int = 500,
    lr: float = 0.05,
    refinement: int = 8,
) -> GaugedField:
    """Fit the gauge of a *frozen* field to a fixed-step solver: less error for the same number of evaluations.

    Minimises log E|Φ_steps(x₀) − Φ(x₀)|² over the coefficients of a :class:`GaugedField` by Adam on all inputs at
    once, where Φ_steps is the solver with the gauge and Φ rk4 on the field itself, with ``refinement`` times as many
    steps, or 64 if those are more. The best iterate is kept; the gauge of the start, which is none, counts as one, so
    on ``x0`` it never gets worse. The flow itself is not changed, whatever is found: finer steps converge to that of
    ``field``.

    Adaptive solvers choose their own steps; nothing is gained for them.

    Args:
        field: f(t, x) → (..., n). Its parameters are not touched.
        x0: inputs to fit on, shape (points, n), best in float64. Some hundreds; for ``"linear"`` in many dimensions
            all there are, for it has ``waves`` · n² coefficients to overfit with.
        method: ``"euler"``, ``"midpoint"`` or ``"rk4"``.
        steps: steps of equal length.
        family: see :class:`GaugedField`.
        interval: t₀ and t₁.
        waves: coefficients per entry of g and c.
        clock_waves: coefficients of the clock.
        iterations: steps of Adam.
        lr: its learning rate, which falls to 0 by a cosine. Matrices, each entry of which moves as far in one step,
            take 2/√n of it in more than four dimensions.
        refinement: of the reference.

    Returns:
        The gauged field; integrate it as ``field``, in equal steps.

    Raises:
        FieldError: inputs that are no batch, an unknown or adaptive method, fewer than one step, a field that blows up,
            or no torchdiffeq.
    """
    if x0.ndim != 2 or steps < 1 or iterations < 1 or refinement < 2:
        raise FieldError(
            "Expected x0 of shape (points, n), steps >= 1, iterations >= 1 and refinement >= 2, got "
            f"{tuple(x0.shape)}, {steps}, {iterations} and {refinement}."
        )
    method_of(method)
    gauged = GaugedField(field, x0.shape[1], family, waves, interval, x0.dtype, clock_waves).to(x0.device)
    with torch.no_grad():
        expected = solve(field, x0, uniform_times(max(64, refinement * steps), interval), "rk4")
    if not bool(expected.isfinite().all()):
        raise FieldError(
            "Expected a finite flow for field, got infinity or NaN. Take smaller inputs, or a shorter time."
        )
    times = uniform_times(steps, interval).to(x0)
    small = min(1.0, 2 / x0.shape[1] ** 0.5) if family == "linear" else 1.0
    rates = [(gauged.pace, lr), (gauged.generators, lr * small), (gauged.shifts, lr)]
    moving = [(value.requires_grad_(), rate) for value, rate in rates if value.numel()]
    coefficients = [value for value, _ in moving]
    optimizer = torch.optim.Adam([{"params": [value], "lr": rate} for value, rate in moving])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    best, kept = float("inf"), [value.detach().clone() for value in coefficients]
    for _ in range(iterations):
        error = (_solve_gauged(gauged, x0, times, method) - expected).square().mean()
        if not bool(error.isfinite()):
            break
        if float(error.detach()) < best:
            best, kept = float(error.detach()), [value.detach().clone() for value in coefficients]
        gradients = torch.autograd.grad(error.log(), coefficients)
        for value, gradient in zip(coefficients, gradients, strict=True):
            value.grad = gradient
        optimizer.step()
        schedule.step()
    for value, found in zip(coefficients, kept, strict=True):
        value.grad = None
        value.requires_grad_(False).copy_(found)
    return gauged


def _solve_gauged(gauged: GaugedField, x: Tensor, times: Tensor, method: str) -> Tensor:
    """What torchdiffeq does with the gauged field, but the gauge is worked out for all stages at once."""
    stages = stage_times(times, method)
    frames = gauged.frames(stages.flatten())

    def velocity(step: int, stage: int, y: Tensor) -> Tensor:
        at = step * stages.shape[1] + stage
        return gauged.velocity(Frames(*(part[at] for part in frames)), y)

    return solve_stages(velocity, x, times, method)
