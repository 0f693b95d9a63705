"""Choose the representative of a field's orbit that a given fixed-step solver integrates best."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gaugefix.errors import FieldError
from gaugefix.ode.field import Field
from gaugefix.ode.fitted_field import FittedField, GaugeFit
from gaugefix.ode.gauged_field import Family, Frames, GaugedField
from gaugefix.ode.solver import method_of, solve, solve_stages, stage_times, uniform_times

_FEWEST = 20
_EVERY = 5


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
    held_out: float = 0.2,
) -> FittedField:
    """Fit the gauge of a *frozen* field to a fixed-step solver: less error for the same number of evaluations.

    Minimises log E|Φ_steps(x₀) − Φ(x₀)|² over the coefficients of a :class:`GaugedField` by Adam on all inputs but a
    part that is held out, where Φ_steps is the solver with the gauge and Φ rk4 on the field itself, with ``refinement``
    times as many steps, or 64 if those are more. The error on the inputs held out is measured every five steps, and
    the iterate where it is least is kept; the gauge of the start, which is none, counts as one. So on them what is
    returned is never worse than no gauge, also where the fit goes on to overfit the others. The flow itself is not
    changed, whatever is found: finer steps converge to that of ``field``.

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
            take 4/n of it in more than four dimensions: the norm of a step is as large as there.
        refinement: of the reference.
        held_out: part of ``x0`` that is kept out of the fit, the same points in every call. Of fewer than 20 points
            none is kept out: then the error is measured on the points that the gauge is fitted to. So it is with 0.

    Returns:
        The gauged field; integrate it as ``field``, in equal steps. Its ``fit`` (:class:`GaugeFit`) says what was
        measured: ``fit.gain`` is how many times smaller the error on the inputs held out became. As the best of
        many measurements on them it is a little too good: for a figure to publish, measure on inputs of your own.

    Raises:
        FieldError: inputs that are no batch of real numbers, an unknown or adaptive method, fewer than one step, a
            part that is none, a field that blows up, or no torchdiffeq.

    Example:
        >>> x0 = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None]
        >>> gauged = fit_gauge(lambda t, x: -x * (1 + x**2), x0, "euler", 4, "scalar", iterations=50)
        >>> gauged.fit.points, gauged.fit.held_out, gauged.fit.gain > 5
        (32, 8, True)
    """
    if x0.ndim != 2 or steps < 1 or iterations < 1 or refinement < 2:
        raise FieldError(
            "Expected x0 of shape (points, n), steps >= 1, iterations >= 1 and refinement >= 2, got "
            f"{tuple(x0.shape)}, {steps}, {iterations} and {refinement}."
        )
    if not x0.is_floating_point() or not x0.numel():
        raise FieldError(f"Expected real inputs (points, n) for x0, got {x0.dtype} of shape {tuple(x0.shape)}.")
    if not 0 <= held_out < 1:
        raise FieldError(
            f"Expected a part of x0 for held_out, 0 <= held_out < 1, got {held_out:g}. "
            "0.2 keeps a fifth of the points out of the fit, 0 none."
        )
    method_of(method)
    gauged = FittedField(field, x0.shape[1], family, waves, interval, x0.dtype, clock_waves).to(x0.device)
    x0 = x0.detach()
    with torch.no_grad():
        expected = solve(field, x0, uniform_times(max(64, refinement * steps), interval), "rk4")
    if not bool(expected.isfinite().all()):
        raise FieldError(
            "Expected a finite flow for field, got infinity or NaN. Take smaller inputs, or a shorter time."
        )
    order = torch.randperm(len(x0), generator=torch.Generator().manual_seed(0)).to(x0.device)
    kept_out = int(held_out * len(x0)) if len(x0) >= _FEWEST else 0
    fitted, judged = order[kept_out:], order[:kept_out] if kept_out else order
    times = uniform_times(steps, interval).to(x0)

    def error(rows: Tensor) -> Tensor:
        return (_solve_gauged(gauged, x0[rows], times, method) - expected[rows]).square().mean()

    with torch.no_grad():
        if not bool((error(fitted) + error(judged)).isfinite()):
            raise FieldError(
                f"Expected finite states for field in {steps} steps of {method}, got infinity or NaN. "
                "Take more steps, or smaller inputs."
            )
    small = min(1.0, 4 / x0.shape[1]) if family == "linear" else 1.0
    rates = [(gauged.pace, lr), (gauged.generators, lr * small), (gauged.shifts, lr)]
    found = _descend(
        [pair for pair in rates if pair[0].numel()], lambda: error(fitted), lambda: error(judged), iterations
    )
    gauged.fit = GaugeFit(len(fitted), kept_out, *found)
    return gauged


def _descend(
    rates: list[tuple[Tensor, float]], loss: Callable[[], Tensor], judge: Callable[[], Tensor], iterations: int
) -> tuple[float, float, int]:
    """Lower log loss by Adam, in place, and go back to the iterate that a judge liked best.

    Returns:
        The root of the judge's measure at the start and at that iterate, and which one it is.
    """
    values = [value.requires_grad_() for value, _ in rates]
    optimizer = torch.optim.Adam([{"params": [value], "lr": rate} for value, rate in rates])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    first, best, met, kept = float("nan"), float("inf"), 0, list(values)
    for iteration in range(iterations + 1):
        if iteration % _EVERY == 0 or iteration == iterations:
            with torch.no_grad():
                measured = float(judge())
            if iteration == 0:
                first = measured
            if measured < best:
                best, met, kept = measured, iteration, [value.detach().clone() for value in values]
        if iteration == iterations or not bool((error := loss()).isfinite()):
            break
        gradients = torch.autograd.grad(error.log(), values)
        for value, gradient in zip(values, gradients, strict=True):
            value.grad = gradient
        optimizer.step()
        schedule.step()
    for value, best_value in zip(values, kept, strict=True):
        value.grad = None
        value.requires_grad_(False).copy_(best_value)
    return first**0.5, best**0.5, met


def _solve_gauged(gauged: GaugedField, x: Tensor, times: Tensor, method: str) -> Tensor:
    """What torchdiffeq does with the gauged field, but the gauge is worked out for all stages at once."""
    stages = stage_times(times, method)
    frames = gauged.frames(stages.flatten())

    def velocity(step: int, stage: int, y: Tensor) -> Tensor:
        at = step * stages.shape[1] + stage
        return gauged.velocity(Frames(*(part[at] for part in frames)), y)

    return solve_stages(velocity, x, times, method)
