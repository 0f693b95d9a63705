"""The Frobenius norm of the field's Jacobian, by Hutchinson's estimate."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import vjp

from gaugefix.errors import FieldError
from gaugefix.ode.field import Field
from gaugefix.ode.terms.trajectory import check_trajectory, integral


def jacobian_frobenius(
    field: Field,
    times: Tensor,
    states: Tensor,
    samples: int | None = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return ∫ E‖∂f/∂x‖²_F dt along a trajectory.

    With random signs v, E_v |vᵀ ∂f/∂x|² = ‖∂f/∂x‖²_F (Hutchinson): one vector-Jacobian product a sample, without bias,
    and without variance where the Jacobian has orthogonal rows. As a gauge condition: for a linear field it is
    ∫‖W‖² dt, whose minimum over the orbit is Landau gauge (:func:`landau_gauge`). As a penalty it is that of RNODE,
    arXiv 2002.02798.

    Args:
        field: f(t, x) → (..., n), each point by itself: a field that mixes points adds their cross terms.
        times: shape (times,).
        states: shape (times, ..., n); E is the mean over the axes between.
        samples: vectors drawn a time and point; ``None`` goes through the n unit vectors instead, which is exact.
        generator: of the draws, on the device of ``states``.

    Returns:
        Shape (), differentiable; the time integral is by the trapezoidal rule.

    Raises:
        FieldError: shapes or times that do not fit, or fewer than one sample.

    Example:
        >>> times = torch.linspace(0, 1, 3)
        >>> jacobian_frobenius(lambda t, x: -2 * x, times, torch.randn(3, 4, 2))
        tensor(8.)
    """
    check_trajectory(times, states)
    if samples is not None and samples < 1:
        raise FieldError(f"Expected at least one sample for samples, got {samples}. Pass None for the exact norm.")
    norms = torch.stack([_squared_norm(field, t, x, samples, generator) for t, x in zip(times, states, strict=True)])
    return integral(norms, times)


def _squared_norm(field: Field, t: Tensor, x: Tensor, samples: int | None, generator: torch.Generator | None) -> Tensor:
    result = vjp(lambda state: field(t, state), x)
    velocity, pull_back = result[0], result[1]
    if velocity.shape != x.shape:
        raise FieldError(
            f"Expected velocities of shape {tuple(x.shape)} for field, got {tuple(velocity.shape)}. "
            "Pass the field that the trajectory was integrated with."
        )
    if samples is None:
        units = torch.eye(x.shape[-1]).to(x)
        return sum((_size(pull_back(unit.expand_as(x))[0]) for unit in units), start=x.new_zeros(()))
    total = x.new_zeros(())
    for _ in range(samples):
        coins = torch.randint(0, 2, x.shape, generator=generator, device=x.device)
        total = total + _size(pull_back(2 * coins.to(x) - 1)[0])
    return total / samples


def _size(rows: Tensor) -> Tensor:
    """|row|², averaged over points."""
    return rows.square().sum(-1).mean()
