"""The linear neural ODE: weights as a gauge field, biases as the Higgs field that comes with it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gaugefix.ode.affine_gauge import AffineGauge, affine_matrix
from gaugefix.ode.derivative import with_rate
from gaugefix.ode.field import one_time


class LinearField(nn.Module):
    """dx/dt = W(t) x + b(t), the continuum limit of a deep linear network.

    Read D_t = d/dt − W as a covariant derivative: the network says D_t x = b. Under x̃ = g(t) x

        W̃ = g W g⁻¹ + ġ g⁻¹,      b̃ = g b,

    so W is a *gauge field* on the time axis (the term ġ g⁻¹ makes it a connection), and b is *matter* in the vector
    representation. A shift x̃ = x + c(t) moves b by the covariant derivative of c, b̃ = b + ċ − W c: b can be shifted
    away wherever c is free, as a Higgs field is in unitary gauge. Both laws are one, for A = [[W, b], [0, 0]] on
    (x, 1) and frames G = [[g, c], [0, 1]]:

        Ã = (Ġ + G A) G⁻¹.

    With one dimension of time there is no curvature: all that is invariant under gauges with trivial ends is the
    parallel transport from end to end, the :func:`holonomy` (arXiv 2402.02362).

    Args:
        weight: W, from t of shape () to shape (n, n); may be a module, with parameters.
        bias: b, from t to shape (n,); zero by default.

    Raises:
        FieldError: (when evaluated) shapes that do not fit.

    Example:
        >>> turn = LinearField(lambda t: torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
        >>> turn(torch.tensor(0.0), torch.tensor([[1.0, 0.0]]))
        tensor([[0., 1.]])
    """

    def __init__(self, weight: Callable[[Tensor], Tensor], bias: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.weight = weight
        self.bias = bias

    def connection(self, t: Tensor) -> Tensor:
        """Return A = [[W, b], [0, 0]], shape (n + 1, n + 1), for t of shape ()."""
        return affine_matrix(self.weight(t), None if self.bias is None else self.bias(t), corner=0.0)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Return W(t) x + b(t), shape (..., n), for t of shape () and x of shape (..., n)."""
        a = self.connection(one_time(t, x))
        return x @ a[:-1, :-1].mT + a[:-1, -1]

    def transform(self, gauge: AffineGauge) -> LinearField:
        """Return the field of x̃ = g(t) x + c(t): what :func:`push_forward` gives, but linear again.

        Args:
            gauge: its derivative in t is taken by ``torch.func``, so it has to be smooth.
        """
        return _Transformed(self, gauge)


class _Transformed(LinearField):
    """Ã = (Ġ + G A) G⁻¹."""

    def __init__(self, field: LinearField, gauge: AffineGauge) -> None:
        super().__init__(weight=lambda t: self.connection(t)[:-1, :-1], bias=lambda t: self.connection(t)[:-1, -1])
        self.original = field
        self.gauge = gauge

    def connection(self, t: Tensor) -> Tensor:
        frame, rate = with_rate(self.gauge.frame, t)
        moved: Tensor = torch.linalg.solve(frame, rate + frame @ self.original.connection(t), left=False)
        return moved
