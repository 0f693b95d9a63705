"""Choose the representative of a field's orbit that a given fixed-step solver integrates best."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gaugefix.errors import FieldError
from gaugefix.ode.field import Field
from gaugefix.ode.gauged_field import Family, GaugedField


def fit_gauge(
    field: Field,
    x0: Tensor,
    method: str = "rk4",
    steps: int = 8,
    family: Family = "linear",
    *,
    interval: tuple[float, float] = (0.0, 1.0),
    waves: int = 3,
    iterations: int = 200,
    lr: float = 0.05,
    refinement: int = 8,
) -> GaugedField:
    """Fit the gauge of a *frozen* field to a fixed-step solver: less error for the same number of evaluations.

    Minimises log E|Φ_steps(x₀) − Φ(x₀)|² over the coefficients of a :class:`GaugedField` by Adam, where Φ_steps is the
    solver with the gauge and Φ the same solver on the field itself with ``refinement`` times as many steps, or 256 if
    those are more. The best iterate is kept; the gauge of the start, which is none, counts as one, so on ``x0`` it
    never gets worse. The flow itself is not changed, whatever is found: finer steps converge to that of ``field``.

    Adaptive solvers choose their own steps; nothing is gained for them.

    Args:
        field: f(t, x) → (..., n). Its parameters are not touched.
        x0: inputs to fit on, shape (points, n): some hundreds, for ``"linear"`` has many coefficients to overfit with.
        method: a fixed-step method of torchdiffeq: ``"euler"``, ``"midpoint"``, ``"rk4"``, ….
        steps: steps of equal length.
        family: see :class:`GaugedField`.
        interval: t₀ and t₁.
        waves: coefficients per entry.
        iterations: steps of Adam.
        lr: its learning rate, which falls to 0 by a cosine.
        refinement: of the reference.

    Returns:
        The gauged field; integrate it as ``field``, in equal steps.

    Raises:
        FieldError: inputs that are no batch, fewer than one step, or no torchdiffeq.
    """
    if x0.ndim != 2 or steps < 1 or iterations < 1 or refinement < 2:
        raise FieldError(
            "Expected x0 of shape (points, n), steps >= 1, iterations >= 1 and refinement >= 2, got "
            f"{tuple(x0.shape)}, {steps}, {iterations} and {refinement}."
        )
    gauged = GaugedField(field, x0.shape[1], family, waves, interval, x0.dtype).to(x0.device)
    with torch.no_grad():
        expected = _integrate(field, x0, method, max(256, refinement * steps), interval)
    coefficients = [
        value.requires_grad_() for value in (gauged.pace, gauged.generators, gauged.shifts) if value.numel()
    ]
    optimizer = torch.optim.Adam(coefficients, lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    best, kept = float("inf"), [value.detach().clone() for value in coefficients]
    for _ in range(iterations):
        error = (_integrate(gauged, x0, method, steps, interval) - expected).square().mean()
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


def _integrate(field: Any, x: Tensor, method: str, steps: int, interval: tuple[float, float]) -> Tensor:
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise FieldError("Expected torchdiffeq for fit_gauge, got none. pip install torchdiffeq.") from error
    times = torch.linspace(*interval, steps + 1).to(x)
    states: Tensor = odeint(field, x, times, method=method)
    return states[-1]
