"""Landau gauge in the continuum: the linear field of least norm with a given transport from end to end."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import jacrev

from gaugefix.errors import FieldError, GroupError
from gaugefix.groups.principal_log import principal_log
from gaugefix.ode.linear_field import LinearField


class LandauField(LinearField):
    """The W(t) with P exp ∫W dt = U whose ∫‖W‖² dt is stationary, in closed form.

    The condition Ẇ = [W, Wᵀ] is solved by W(t) = e^{(t−t₀)K} M e^{−(t−t₀)K} with K = M − Mᵀ. In the frame that turns
    with K the state obeys ẏ = Mᵀy, so that

        U = e^{T(M − Mᵀ)} e^{T Mᵀ},      ∫‖W‖² dt = T ‖M‖²,

    and M is found from U by a damped Newton iteration, starting at the logarithms of the rotation and the stretch
    that U is made of. That start has winding number 0; other windings are other solutions (Gribov copies). A normal M
    gives a constant W.

    Args:
        transport: U, shape (n, n), with a positive determinant.
        interval: t₀ and t₁.

    Raises:
        FieldError: a U that no continuous field gives, or an iteration that does not converge.

    Example:
        >>> field = LandauField(torch.tensor([[2.0, 1.0], [0.0, 1.0]]).double())
        >>> field.generator.square().sum().round(decimals=4)
        tensor(0.8967, dtype=torch.float64)
    """

    generator: Tensor

    def __init__(self, transport: Tensor, interval: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__(weight=self._weight)
        start, end = interval
        transport = transport.detach()
        if transport.ndim != 2 or transport.shape[0] != transport.shape[1] or not start < end:
            raise FieldError(
                f"Expected a square matrix for transport and t0 < t1 for interval, got {tuple(transport.shape)} and "
                f"{interval}."
            )
        if not float(torch.linalg.det(transport)) > 0:
            raise FieldError(
                f"Expected a positive determinant for transport, got {float(torch.linalg.det(transport)):.3g}. "
                "A flow cannot reverse orientation: flip one axis of the decoder first."
            )
        self.start = start
        self.register_buffer("generator", (_solve(transport.double()) / (end - start)).to(transport))

    def _weight(self, t: Tensor) -> Tensor:
        turn = torch.linalg.matrix_exp((t - self.start) * (self.generator - self.generator.mT))
        weight: Tensor = turn @ self.generator @ turn.mT
        return weight


def _transport(m: Tensor) -> Tensor:
    product: Tensor = torch.linalg.matrix_exp(m - m.mT) @ torch.linalg.matrix_exp(m.mT)
    return product


def _solve(transport: Tensor, iterations: int = 50) -> Tensor:
    """Solve e^{M − Mᵀ} e^{Mᵀ} = U for M."""
    m, n = _guess(transport), len(transport)
    size = float((_transport(m) - transport).norm())
    for _ in range(iterations):
        if size <= 1e-13 * float(transport.norm()):
            return m
        jacobian = jacrev(_transport)(m).reshape(n * n, n * n)
        step, info = torch.linalg.solve_ex(jacobian, (_transport(m) - transport).flatten())
        length = 1.0 if int(info) == 0 else 0.0
        while length > 1e-6:
            trial = m - length * step.reshape(n, n)
            there = float((_transport(trial) - transport).norm())
            if there < size:
                break
            length /= 2
        if not length > 1e-6:
            break
        m, size = trial, there
    if size <= 1e-11 * float(transport.norm()):
        return m
    raise FieldError(
        f"Expected Newton's iteration to find the Landau gauge of transport, got a residual of {size:.1e}. "
        "Integrate it to a lattice and use landau_gauge."
    )


def _guess(transport: Tensor) -> Tensor:
    """M = S + K/2 … from U = R P: e^{2K}e^{S − K} with the logarithm S of P and, to first order, K of R."""
    left, stretch, right = torch.linalg.svd(transport)
    s: Tensor = right.mT @ torch.diag(stretch.log()) @ right
    try:
        k = principal_log((left @ right)[None], "SO(n)")[0]
    except GroupError:  # a half turn: any logarithm of it would do, the nearby one of U may exist
        return s
    return s + (k - k.mT) / 2
