"""Theorem 2: the rescaling of a ReLU network is the diffeomorphism x′ = Λ(t) x, seen through integrated layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gaugefix.ode.affine_gauge import AffineGauge
from gaugefix.ode.derivative import with_rate
from gaugefix.ode.field import one_time


class Rescaling(AffineGauge):
    """x′ = Λ(t) x with Λ = diag(e^{ℓ(t)}): positive, so that it goes through every ReLU.

    *Layers.* σ(λ y) = λ σ(y) for λ > 0, so a ReLU network x_{l+1} = σ(U_l x_l + β_l) computes λ_L times the same
    after

        U_l → λ_{l+1} U_l λ_l⁻¹,      β_l → λ_{l+1} β_l.                                                         (1)

    *Continuum.* The linear field W, b of x′ is W → Λ̇Λ⁻¹ + ΛWΛ⁻¹, b → Λb.                                           (2)

    *Theorem 2.* (1) and (2) are one where a layer is the integral of the field over its interval, U_l = P exp ∫W dt:
    ``integrate(field.transform(r), times)`` equals ``integrate(field, times).transform(r.frames(times))`` for every
    number of layers L. Layers that sample the field agree with themselves to an order in 1/L only:
    U_l = 1 + hW(t_l) to the first, U_l = exp(hW(t_l + h/2)) to the second (:func:`sample`).
    (The theorem is that of arXiv 2402.02362; statement and derivation here are ours.)

    Args:
        log_scale: ℓ, from t of shape () to shape (n,); zero at both ends if the function is to stay.

    Example:
        >>> r = Rescaling(lambda t: torch.stack([t, -t]))
        >>> r(torch.tensor(1.0), torch.ones(2))[1]
        tensor([2.7183, 0.3679])
    """

    def __init__(self, log_scale: Callable[[Tensor], Tensor]) -> None:
        super().__init__(matrix=lambda t: torch.diag(self.log_scale(t).exp()))
        self.log_scale = log_scale


class ReluField(nn.Module):
    """dx/dt = m(t) x + σ(W(t) x + b(t)), the continuum limit of residual ReLU networks.

    Its layers are x_{l+1} = s_l x_l + h σ(W_l x_l + b_l) with skips s_l. Rescaling makes them

        s_l → λ_{l+1} s_l / λ_l,      W_l → λ_{l+1} W_l λ_l⁻¹,      b_l → λ_{l+1} b_l,

    exactly; an ordinary residual network, whose skips must be 1, has constant Λ only, others to O(1/L). In the limit

        m → m + Λ̇Λ⁻¹,      W → ΛWΛ⁻¹,      b → Λb.

    Args:
        weight: W, from t of shape () to shape (n, n).
        bias: b, from t to shape (n,).
        rate: m, from t to shape (n,); zero by default.

    Example:
        >>> field = ReluField(lambda t: -torch.eye(2), lambda t: torch.zeros(2))
        >>> field(torch.tensor(0.0), torch.tensor([[1.0, -1.0]]))
        tensor([[0., 1.]])
    """

    def __init__(
        self,
        weight: Callable[[Tensor], Tensor],
        bias: Callable[[Tensor], Tensor],
        rate: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.weight, self.bias, self.rate = weight, bias, rate

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Return the velocity, shape (..., n), for t of shape () and x of shape (..., n)."""
        t = one_time(t, x)
        branch = torch.relu(x @ self.weight(t).mT + self.bias(t))
        return branch if self.rate is None else self.rate(t) * x + branch

    def rescale(self, rescaling: Rescaling) -> ReluField:
        """Return the field of x′ = Λ(t) x: what :func:`push_forward` gives, but of the same kind again."""

        def rate(t: Tensor) -> Tensor:
            slope = with_rate(rescaling.log_scale, t)[1]
            return slope if self.rate is None else slope + self.rate(t)

        def weight(t: Tensor) -> Tensor:
            scale = rescaling.log_scale(t).exp()
            return scale[:, None] * self.weight(t) / scale

        return ReluField(weight, lambda t: rescaling.log_scale(t).exp() * self.bias(t), rate)
