"""The inverse of a diffeomorphism of spacetime, by a damped Newton iteration over a batch of points."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from gaugefix.errors import DiffeomorphismError
from gaugefix.ode.field import Diffeomorphism, name_point


def invert(diffeo: Diffeomorphism, tau: Tensor, xi: Tensor, iterations: int = 50) -> tuple[Tensor, Tensor]:
    """Solve ψ(t, x) = (τ, ξ) for all points at once.

    z ← z − s·Dψ(z)⁻¹(ψ(z) − w) from z = w, with the step s of each point halved until the residual falls. It runs to
    the root of the rounding error; one more step, which autograd sees, then reaches rounding and carries the first
    derivatives, for ∂z = Dψ⁻¹(∂w − ∂_θψ) is the derivative of that step.

    Args:
        diffeo: ψ(t, x) → (τ, ξ), written for one point.
        tau: τ, shape (points,).
        xi: ξ, shape (points, n).
        iterations: limit of steps.

    Returns:
        t, shape (points,), and x, shape (points, n).

    Raises:
        DiffeomorphismError: the Jacobian of ψ is singular on the way, or the limit is reached.

    Example:
        >>> tau, xi = torch.tensor([0.5]), torch.tensor([[0.6]])
        >>> t, x = invert(lambda t, x: (t, x + x**3), tau, xi)
        >>> bool(torch.allclose(x + x**3, xi))
        True
    """
    target = torch.cat([tau[:, None], xi], -1)
    z = _iterate(diffeo, target.detach(), iterations)
    value, jacobian = _linearise(diffeo, z)
    z = z - _solve(jacobian.detach(), value - target, z)
    return z[:, 0], z[:, 1:]


def _joined(diffeo: Diffeomorphism, z: Tensor) -> Tensor:
    tau, xi = diffeo(z[0], z[1:])
    if tau.numel() != 1 or xi.shape != z[1:].shape:
        raise DiffeomorphismError(
            f"Expected a scalar and shape {tuple(z[1:].shape)} for (tau, xi) of diffeo at one point, got "
            f"{tuple(tau.shape)} and {tuple(xi.shape)}. Write diffeo(t, x) for t of shape () and x of shape (n,)."
        )
    return torch.cat([tau.reshape(1), xi])


def _linearise(diffeo: Diffeomorphism, z: Tensor) -> tuple[Tensor, Tensor]:
    """ψ(z), (points, 1 + n), and Dψ(z), (points, 1 + n, 1 + n)."""

    def twice(z: Tensor) -> tuple[Tensor, Tensor]:
        value = _joined(diffeo, z)
        return value, value

    # Without gradients, vmap of jacrev is wrong for torch.linalg.solve and det, silently (PyTorch 2.13).
    with torch.enable_grad():
        jacobian, value = vmap(jacrev(twice, has_aux=True))(z)
    return value, jacobian


def _solve(jacobian: Tensor, residual: Tensor, z: Tensor) -> Tensor:
    step: Tensor
    step, info = torch.linalg.solve_ex(jacobian, residual)
    if bool((info > 0).any()):
        raise DiffeomorphismError(
            "Expected an invertible Jacobian for diffeo, got a singular one at "
            f"{name_point(z[:, 0], z[:, 1:], info > 0)}. "
            "The map folds or flattens there: weaken it."
        )
    return step


def _iterate(diffeo: Diffeomorphism, target: Tensor, iterations: int) -> Tensor:
    enough = torch.finfo(target.dtype).eps ** 0.5 * (1 + target.norm(dim=-1))
    z, length = target, torch.ones_like(enough)
    value, jacobian = (part.detach() for part in _linearise(diffeo, z))
    size = (value - target).norm(dim=-1)
    step = torch.zeros_like(z)
    for _ in range(iterations):
        done = size <= enough
        if bool(done.all()):
            return z
        step = torch.where(length[:, None] == 1, _solve(jacobian, value - target, z), step)
        trial = z - torch.where(done, 0, length)[:, None] * step
        value_there, jacobian_there = (part.detach() for part in _linearise(diffeo, trial))
        size_there = (value_there - target).norm(dim=-1)
        # a point whose residual does not fall stays, and tries half the step
        falls = done | (size_there < size * (1 - 1e-4 * length))
        z, value, size = _pick(falls, trial, z), _pick(falls, value_there, value), _pick(falls, size_there, size)
        jacobian = _pick(falls, jacobian_there, jacobian)
        length = torch.where(falls, 1, length / 2)
    far = ~(size <= enough)
    if not bool(far.any()):
        return z
    raise DiffeomorphismError(
        "Expected Newton's iteration to find where diffeo reaches "
        f"{name_point(target[:, 0], target[:, 1:], far, 'tau', 'xi')}, got a residual of {float(size[far][0]):.1e} "
        f"after {iterations} steps. Pass the inverse, or a map nearer to the identity."
    )


def _pick(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Choose between two batches of the same shape, point by point."""
    return torch.where(mask.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)
