"""Theorem 1: a field pushed forward by a diffeomorphism of spacetime that fixes both ends has the same flow map."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.func import vmap

from gaugefix.errors import DiffeomorphismError
from gaugefix.ode.derivative import derivative_along
from gaugefix.ode.field import Diffeomorphism, Field, flatten_points, name_point, velocities
from gaugefix.ode.newton import invert


class PushForward(nn.Module):
    """The field that a diffeomorphism of spacetime makes of another field.

    Let dx/dt = f(t, x), and ψ(t, x) = (τ, ξ). Along a solution dτ = (∂_tτ + f·∇τ) dt and dξ = (∂_tξ + f·∇ξ) dt, so its
    image is a solution of dξ/dτ = f′(τ, ξ) with

        f′(ψ(t, x)) = (∂_tξ + f·∇ξ) / (∂_tτ + f·∇τ),      D_tτ = ∂_tτ + f·∇τ > 0,

    which is one Jacobian-vector product of ψ along (1, f). Where ψ is the identity on the slices t = t₀ and t = t₁,
    solutions keep their ends: the flow map x(t₀) → x(t₁) is that of f (Theorem 1 of arXiv 2402.02362; this is our
    derivation). :func:`check_ends` asks for that; without it, the flow map becomes ψ₁ ∘ Φ ∘ ψ₀⁻¹.

    An ``nn.Module``: modules among its arguments are its children, and first derivatives with respect to their
    parameters, τ and ξ go through the inverse, so ``odeint`` and ``odeint_adjoint`` take it.

    Args:
        field: f(t, x) → (..., n). It is asked at points with times of their own, one by one under ``torch.func.vmap``:
            it has to take x of shape (n,) and must not mix points (no batch norm).
        diffeo: ψ(t, x) → (τ, ξ), for one point.
        inverse: ψ⁻¹(τ, ξ) → (t, x), for one point. By default ``diffeo.inverse`` if there is one, else Newton's
            iteration (:func:`invert`).

    Raises:
        DiffeomorphismError: (when evaluated) D_tτ ≤ 0, an inverse that is none, an iteration that does not converge.
        FieldError: (when evaluated) shapes that do not fit.

    Example:
        >>> decay = PushForward(lambda t, x: -x, lambda t, x: (t, x * torch.exp(t * (1 - t))))
        >>> decay(torch.tensor(0.5), torch.tensor([[2.0]]))  # d log ξ/dt = -1 + (1 - 2t)
        tensor([[-2.]])
    """

    def __init__(self, field: Field, diffeo: Diffeomorphism, inverse: Diffeomorphism | None = None) -> None:
        super().__init__()
        self.field = field
        self.diffeo = diffeo
        self.inverse = cast("Diffeomorphism | None", getattr(diffeo, "inverse", None)) if inverse is None else inverse

    def forward(self, tau: Tensor, xi: Tensor) -> Tensor:
        """Return f′(τ, ξ) of shape (..., n) for τ of shape () and ξ of shape (..., n)."""
        return self.at(*flatten_points(tau, xi)).reshape(xi.shape)

    def at(self, tau: Tensor, xi: Tensor) -> Tensor:
        """Return f′, (points, n), at points with times of their own: τ (points,), ξ (points, n)."""
        with torch.enable_grad():  # functions that differentiate within vmap need it (see newton.py)
            velocity = self._at(tau, xi)
        return velocity if torch.is_grad_enabled() else velocity.detach()

    def _at(self, tau: Tensor, xi: Tensor) -> Tensor:
        if self.inverse is None:
            t, x = invert(self.diffeo, tau, xi)
        else:
            t, x = vmap(self.inverse)(tau, xi)
        f = velocities(self.field, t, x)
        (tau_again, xi_again), (pace, velocity) = vmap(self._along)(t, x, f)
        self._check_inverse(tau, xi, tau_again, xi_again)
        self._check_pace(pace, t, x)
        return velocity / pace[:, None]

    def _along(self, t: Tensor, x: Tensor, f: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        value, derivative = derivative_along(self.diffeo, (t, x), (torch.ones_like(t), f))
        return value, derivative

    def _check_inverse(self, tau: Tensor, xi: Tensor, tau_again: Tensor, xi_again: Tensor) -> None:
        off = (xi_again - xi).norm(dim=-1) + (tau_again - tau).abs()
        wrong = ~(off <= torch.finfo(xi.dtype).eps ** 0.5 * (1 + xi.norm(dim=-1) + tau.abs()))
        if bool(wrong.any()):
            raise DiffeomorphismError(
                f"Expected diffeo(inverse(tau, xi)) = (tau, xi) for inverse, got a point that is "
                f"{float(off.detach()[wrong][0]):.1e} off at {name_point(tau, xi, wrong, 'tau', 'xi')}. "
                "Mend the inverse, or leave it out and let it be found."
            )

    def _check_pace(self, pace: Tensor, t: Tensor, x: Tensor) -> None:
        backward = ~(pace > 0)
        if bool(backward.any()):
            raise DiffeomorphismError(
                f"Expected D_t tau > 0 along the field for diffeo, got {float(pace.detach()[backward][0]):.3g} at "
                f"{name_point(t, x, backward)}. The new time runs backward there: weaken how tau depends on t and x."
            )


def push_forward(field: Field, diffeo: Diffeomorphism, inverse: Diffeomorphism | None = None) -> PushForward:
    """Push a field forward by a diffeomorphism of spacetime: see :class:`PushForward`.

    Args:
        field: f(t, x) → (..., n).
        diffeo: ψ(t, x) → (τ, ξ), for one point; the identity on both end slices, if the flow map is to stay.
        inverse: ψ⁻¹, for one point; found by Newton's iteration if it is not known.

    Returns:
        A field, to be integrated like ``field``.

    Example:
        >>> field = push_forward(lambda t, x: -x, lambda t, x: (t + 0.1 * torch.sin(torch.pi * t), x))
        >>> field(torch.tensor(0.0), torch.tensor([1.0]))  # the clock runs 1 + π/10 times as fast
        tensor([-0.7609])
    """
    return PushForward(field, diffeo, inverse)
