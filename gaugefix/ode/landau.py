"""Landau gauge: the least norm that a linear neural ODE with fixed ends can have, by sweeps over its time lattice."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from gaugefix.errors import ConvergenceWarning
from gaugefix.ode.lattice import Lattice
from gaugefix.ode.temporal import GaugeFixed


def landau_gauge(lattice: Lattice, tolerance: float = 1e-6, sweeps: int = 500) -> GaugeFixed:
    """Minimise Σ (‖U_l − 1‖² + |β_l|²)/h_l over frames that are 1 at both ends.

    The gradient at an inner time is D_{l−1} link_{l−1}ᵀ/h_{l−1} − link_lᵀ D_l/h_l with D = link − 1, its last row
    left out. In the continuum it vanishes where Ẇ = [W, Wᵀ] + b bᵀ and ḃ = −Wᵀ b. Each sweep steps against it, as
    nonlinear conjugate gradients with a line search, preconditioned by the inverse Laplacian of the time axis ("Fourier
    acceleration": long and short waves move alike).

    The minimum need not be unique: frames can wind (π₁ of GL₊(2) is ℤ, of GL₊(n > 2) ℤ₂), and each winding has minima
    of its own, the Gribov copies. Starting from the given lattice with frames 1 finds the one that is near. What is
    left of the gauge at a minimum with fixed ends: nothing, near it. If the ends may move together, constant rotations.

    Args:
        lattice: links (layers, n + 1, n + 1), float64 for tolerances below 1e-4. The result is differentiable in
            them, with the frames held.
        tolerance: of :func:`landau_residual`.
        sweeps: limit; a :class:`ConvergenceWarning` is given there.

    Returns:
        The lattice and the frames; the holonomy is that of before.

    Example:
        >>> lattice = Lattice.of_layers(torch.tensor([[[2.0]], [[0.5]]], dtype=torch.float64))
        >>> landau_gauge(lattice).lattice.weights.flatten().round(decimals=6)
        tensor([1., 1.], dtype=torch.float64)
    """
    start = Lattice(lattice.links.detach(), lattice.times)
    frames = torch.eye(lattice.links.shape[-1]).to(lattice.links).repeat(len(lattice.times), 1, 1)
    now, force = start, _force(start)
    smooth = _inverse_laplacian(force, now)
    step, direction = 1.0, -smooth
    for _ in range(sweeps):
        if _relative(force, smooth, now) <= tolerance:
            break
        slope = float((force * direction).sum())
        if not slope < 0:
            direction, slope = -smooth, -float((force * smooth).sum())
        step, new_frames, new = _line_search(start, now, frames, direction, slope, step)
        if step == 0.0:
            break  # rounding: no step lowers the norm
        new_force = _force(new)
        new_smooth = _inverse_laplacian(new_force, new)
        # Polak–Ribière in the metric of the preconditioner, restarted where it turns negative
        turn = float(((new_force - force) * new_smooth).sum() / (force * smooth).sum())
        direction = -new_smooth + max(turn, 0.0) * direction
        now, frames, force, smooth = new, new_frames, new_force, new_smooth
    if landau_residual(now) > tolerance:
        warnings.warn(
            f"Expected a residual of at most {tolerance:.1e} within {sweeps} sweeps, got {landau_residual(now):.1e}. "
            "Raise sweeps or tolerance, or use float64.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return GaugeFixed(lattice.transform(frames), frames)


def landau_residual(lattice: Lattice) -> float:
    """Return √(⟨force, Δ⁻¹ force⟩ / action), how far a lattice is from Landau gauge: a pure number, 0 on the slice."""
    lattice = Lattice(lattice.links.detach(), lattice.times)
    force = _force(lattice)
    return _relative(force, _inverse_laplacian(force, lattice), lattice)


def _relative(force: Tensor, smooth: Tensor, lattice: Lattice) -> float:
    decrement, action = float((force * smooth).sum()), float(lattice.action())
    return (max(decrement, 0.0) / action) ** 0.5 if action > 0 else 0.0


def _force(lattice: Lattice) -> Tensor:
    """Half the gradient of the action in the frames at inner times, (layers − 1, m, m), last rows zero."""
    links = lattice.links
    slope = (links - torch.eye(links.shape[-1]).to(links)) / lattice.times.diff()[:, None, None]
    force = slope[:-1] @ links[:-1].mT - links[1:].mT @ slope[1:]
    return torch.cat([force[:, :-1], torch.zeros_like(force[:, -1:])], 1)


def _inverse_laplacian(force: Tensor, lattice: Lattice) -> Tensor:
    """Solve (ε_l − ε_{l−1})/h_{l−1} − (ε_{l+1} − ε_l)/h_l = force_l with ε = 0 at both ends, by two running sums."""
    h = lattice.times.diff()[:, None, None]
    fallen = torch.cat([torch.zeros_like(force[:1]), force.cumsum(0)])
    flux = (h * fallen).sum(0) / h.sum() - fallen
    return (h * flux).cumsum(0)[:-1]


def _line_search(
    start: Lattice, now: Lattice, frames: Tensor, direction: Tensor, slope: float, step: float
) -> tuple[float, Tensor, Lattice]:
    """Find a step where the slope is less than a third of what it was; a step of 0 where rounding hides it.

    The slope tells nearer to the minimum than the action does, whose rounding hides steps of the root of its size.
    """
    limit = float(now.action()) * (1 + 64 * torch.finfo(frames.dtype).eps)
    low, high, slope_low = 0.0, float("inf"), slope
    for _ in range(30):
        moves = torch.linalg.matrix_exp(step * direction)
        trial = torch.cat([frames[:1], moves @ frames[1:-1], frames[-1:]])
        new = start.transform(trial)
        there = float((_force(new) * direction).sum())
        lower = float(new.action()) <= limit
        if lower and abs(there) <= abs(slope) / 3:
            return step, trial, new
        zero = step - there * (step - low) / (there - slope_low) if there > slope_low else float("inf")
        if lower and there < 0:
            low, slope_low = step, there
            step = min(max(zero, 1.1 * step), 4 * step) if high == float("inf") else (low + high) / 2
        else:
            high = step
            step = zero if lower and low < zero < high else (low + high) / 2
    return 0.0, frames, now
