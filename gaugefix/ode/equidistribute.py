"""The time grid on which every step of a fixed-step solver adds the same to the final error."""

from __future__ import annotations

import itertools
import warnings

import torch
from torch import Tensor
from torch.func import vjp, vmap

from gaugefix.errors import ConvergenceWarning, FieldError
from gaugefix.ode.field import Field
from gaugefix.ode.grid import redistribute
from gaugefix.ode.solver import method_of, solve, uniform_times

_SHARE = 0.75
_PATIENCE = 10


def equidistribute(
    field: Field,
    x0: Tensor,
    method: str = "rk4",
    steps: int = 8,
    interval: tuple[float, float] = (0.0, 1.0),
    *,
    start: Tensor | None = None,
    tolerance: float = 1e-3,
    iterations: int = 100,
) -> Tensor:
    """Return the grid whose steps all have the same error at the end, :func:`final_errors`.

    A step of length h that begins at t leaves the error ρ(t) h^{p+1} at the end, with p the order of the method. Then
    for a given number of steps Σ_k ρ_k h_k^{p+1} is least where the density of steps is ∝ ρ^{1/(p+1)}, that is where
    all terms are equal. The iteration is de Boor's: spread the steps by the ρ that the present grid shows,
    t ← (1 − θ) t + θ t_new, with half the θ where errors do not become more equal.

    Where the error of a step grows with the step, there is one such grid only. It depends on the method and on the
    number of steps.

    Args:
        field: f(t, x) → dx/dt; its parameters are not touched. In evaluation mode: it must draw no random numbers.
        x0: inputs, shape (points, …), over which the square of the error is averaged; some dozens will do.
        method: ``"euler"``, ``"midpoint"`` or ``"rk4"``.
        steps: N.
        interval: t₀ and t₁.
        start: where to begin, shape (N + 1,); by default in equal steps.
        tolerance: largest error of a step over the smallest, minus 1, at which to stop; rounding is allowed for.
        iterations: at most.

    Returns:
        Times, shape (N + 1,), of the dtype of ``x0``; the first is t₀, the last t₁.

    Raises:
        FieldError: an unknown or adaptive method, less than one step, no inputs, errors that are not finite, or no
            torchdiffeq.

    Warns:
        ConvergenceWarning: the tolerance was not reached; the best grid is returned.

    Example:
        >>> times = equidistribute(lambda t, x: -4 * t**3 * x, torch.ones(1, 1).double(), "euler", steps=3)
        >>> [round(float(h), 2) for h in times.diff()]  # nothing happens at first
        [0.56, 0.21, 0.23]
    """
    order, times = method_of(method).order, (uniform_times(steps, interval) if start is None else start).to(x0)
    if x0.ndim < 1 or not x0.is_floating_point() or not x0.numel():
        raise FieldError(f"Expected real inputs (points, …) for x0, got {x0.dtype} of shape {tuple(x0.shape)}.")
    if steps == 1:
        return times
    share, waited, best, least = _SHARE, 0, times, float("inf")
    for _ in range(iterations):
        errors, rounding = _errors(field, x0, times, method)
        imbalance = float(errors.max() / errors.min()) - 1
        if imbalance <= tolerance + float(rounding / errors.min()):
            return times
        best, least, waited = (times, imbalance, 0) if imbalance < least else (best, least, waited + 1)
        new = redistribute(times, errors ** (1 / (order + 1)) / times.diff(), steps)
        times = torch.lerp(times, new, share)
        if waited == _PATIENCE:
            times, share, waited = best, share / 2, 0
    warnings.warn(
        f"Expected errors equal to {tolerance:.0e} for equidistribute, got {least:.1e} after "
        f"{iterations} iterations. Take float64, or more inputs.",
        ConvergenceWarning,
        stacklevel=2,
    )
    return best


def final_errors(field: Field, x0: Tensor, times: Tensor, method: str, substeps: int = 4) -> Tensor:
    """Return what each step of a solver adds to the error at the end, to first order: its adjoint-weighted local error.

    Step k, from the exact state x(t_k), misses x(t_{k+1}) by e_k. At the end this is ∂Φ_{t_{k+1}→t₁} e_k, and of that
    the root mean square over all inputs is taken. All e_k are carried along by the linearised flow at once, which is
    the adjoint's answer without the size of the adjoint: it holds for any shape of the state.

    Args:
        field: f(t, x) → dx/dt.
        x0: inputs, shape (points, …).
        times: shape (steps + 1,).
        method: ``"euler"``, ``"midpoint"`` or ``"rk4"``.
        substeps: of rk4 within each step, for the exact flow.

    Returns:
        Errors, shape (steps,), at least the rounding error of ``x0``'s dtype.

    Raises:
        FieldError: errors that are not finite.
    """
    return _errors(field, x0, times, method, substeps)[0]


def _errors(field: Field, x0: Tensor, times: Tensor, method: str, substeps: int = 4) -> tuple[Tensor, Tensor]:
    """Final errors, and the rounding error of a state."""
    x, carried = x0.detach(), x0.new_zeros(0, *x0.shape)
    for start, end in itertools.pairwise(times):
        missed = solve(field, x, torch.stack([start, end]), method).detach()
        fine = torch.lerp(start, end, torch.linspace(0, 1, substeps + 1).to(x))
        for a, b in itertools.pairwise(fine):
            x, carried = _carry(field, x, carried, torch.stack([a, b]))
        carried = torch.cat([carried, (missed - x)[None]])
    errors = carried.flatten(1).square().mean(1).sqrt()
    if not bool(errors.isfinite().all()):
        raise FieldError(
            f"Expected finite errors for field on {len(errors)} steps of {method}, got {errors.tolist()}. "
            "Take more steps, or smaller inputs."
        )
    rounding = (torch.finfo(x.dtype).eps * x.square().mean().sqrt()).clamp(min=torch.finfo(x.dtype).tiny)
    return torch.hypot(errors, rounding), rounding


def _carry(field: Field, x: Tensor, tangents: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """One step of rk4 for the state, and its derivative along each tangent (Jv as the pullback of the pullback)."""
    value, pull_back = vjp(lambda x: solve(field, x, times, "rk4"), x)[:2]
    if not len(tangents):
        return value.detach(), tangents
    push = vjp(pull_back, torch.zeros_like(value))[1]
    return value.detach(), vmap(lambda v: push((v,))[0])(tangents).detach()
