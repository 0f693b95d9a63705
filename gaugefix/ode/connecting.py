"""The converse of Theorem 1: fields with one flow map are connected by a diffeomorphism that fixes both ends."""

from __future__ import annotations

import torch
from torch import Tensor

from gaugefix.errors import FieldError
from gaugefix.ode.field import Field


class Connecting:
    """ψ(t, x) = (t, Φ′_{t₀→t} ∘ Φ_{t₀→t}⁻¹ (x)): back along one field, forward along the other.

    It carries solutions of the first field to those of the second, so that it pushes the first onto the second. It is
    the identity at t₀ always, and at t₁ exactly where both flow maps agree. So diffeomorphisms that fix both ends are
    not some but all of the redundancy of a neural ODE as a function from x(t₀) to x(t₁).

    Both flows are integrated by the classical Runge–Kutta method in a given number of steps; the error is of fourth
    order in their length. With the fields exchanged it goes the other way round, up to that error.

    Args:
        field: f(t, x), for one point.
        other: f′(t, x), for one point.
        start: t₀.
        steps: steps from t₀ to t.

    Raises:
        FieldError: less than one step.

    Example:
        >>> psi = Connecting(lambda t, x: -x, lambda t, x: x, steps=8)
        >>> _, xi = psi(torch.tensor(0.5), torch.tensor([1.0]))
        >>> xi  # e^{2t}
        tensor([2.7183])
    """

    def __init__(self, field: Field, other: Field, start: float = 0.0, steps: int = 16) -> None:
        if steps < 1:
            raise FieldError(f"Expected at least one step for steps, got {steps}. Take 16.")
        self.field, self.other, self.start, self.steps = field, other, start, steps

    def __call__(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (t, ξ) for t of shape () and x of shape (n,)."""
        start = torch.full_like(t, self.start)
        return t, _flow(self.other, start, t, _flow(self.field, t, start, x, self.steps), self.steps)


def _flow(field: Field, start: Tensor, end: Tensor, x: Tensor, steps: int) -> Tensor:
    """The classical Runge–Kutta method from ``start`` to ``end``, smooth in both."""
    h = (end - start) / steps
    for i in range(steps):
        t = start + i * h
        a = field(t, x)
        b = field(t + h / 2, x + h / 2 * a)
        c = field(t + h / 2, x + h / 2 * b)
        d = field(t + h, x + h * c)
        x = x + h / 6 * (a + 2 * b + 2 * c + d)
    return x
