"""What a field and a diffeomorphism of spacetime are, and a field at points that have times of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.func import vmap

from gaugefix.errors import FieldError

Field: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(t, x) → dx/dt; t a scalar, x and dx/dt of shape (..., n). What torchdiffeq's ``odeint`` takes."""

Diffeomorphism: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(t, x) → (τ, ξ), written for one point: t and τ scalars, x and ξ of shape (n,)."""


def velocities(field: Field, t: Tensor, x: Tensor) -> Tensor:
    """Evaluate a field at points of spacetime, each with its own time.

    Args:
        field: maps one point, t () and x (n,), to (n,). A field with a method ``at(t, x)`` for many points is asked
            through that.
        t: times, shape (points,).
        x: states, shape (points, n).

    Returns:
        Velocities, shape (points, n).

    Raises:
        FieldError: the field does not map (n,) to (n,).
    """
    at = getattr(field, "at", None)
    v: Tensor = at(t, x) if at is not None else vmap(field)(t, x)
    if v.shape != x.shape:
        raise FieldError(
            f"Expected velocities of shape {tuple(x.shape[1:])} for field at one point, got {tuple(v.shape[1:])}. "
            "Write the field so that it takes x of shape (..., n), the batch in front."
        )
    return v


def flatten_points(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return times (points,) and states (points, n) of a call as a solver makes it, t () and x (..., n).

    Raises:
        FieldError: t is no scalar, x has no axis, or x is not real.
    """
    if t.numel() != 1:
        raise FieldError(f"Expected one time for t, got shape {tuple(t.shape)}. Pass a scalar tensor.")
    if x.ndim == 0 or not x.is_floating_point():
        raise FieldError(f"Expected real states of shape (..., n) for x, got {x.dtype} of shape {tuple(x.shape)}.")
    points = x.reshape(-1, x.shape[-1])
    return t.to(points).reshape(1).expand(len(points)), points


def one_time(t: Tensor, like: Tensor) -> Tensor:
    """Return ``t`` as a scalar of the dtype and device of ``like``."""
    return torch.as_tensor(t, dtype=like.dtype, device=like.device).reshape(())


def name_point(t: Tensor, x: Tensor, where: Tensor, time: str = "t", state: str = "x") -> str:
    """Name the first of the points (t, x), shapes (points,) and (points, n), that a mask picks, for a message."""
    place = x.detach()[where][0].tolist()
    coordinates = ", ".join(f"{value:.3g}" for value in place[:3]) + (", …" if len(place) > 3 else "")
    return f"{time} = {float(t.detach()[where][0]):.3g}, {state} = ({coordinates})"
