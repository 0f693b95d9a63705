"""Fields one after another, each for its own duration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gaugefix.errors import FieldError
from gaugefix.ode.field import Field, one_time
from gaugefix.ode.piecewise import ADAPTIVE, options_through
from gaugefix.ode.solver import solver_of


class SegmentedField(nn.Module):
    """dx/dt = f_k(u, x) with u = (t − t_k)/δ_k, for t_k ≤ t < t_{k+1} = t_k + δ_k: a stack of K fields.

    Each field sees its own fraction u of its segment, from 0 to 1, so that its flow is that of δ_k f_k over unit time.
    Only this product counts: f_k → f_k/c_k, δ_k → c_k δ_k changes nothing, not even in a solver's rounding beyond
    the last digit (:func:`rescale_durations_`, :func:`fix_durations_`).

    The velocity jumps from segment to segment. A solver that looks across a jump loses all its order but the first; so
    integrate segment by segment, by :meth:`integrate`, or with ``odeint(…, options=field.options(method))``.

    Args:
        fields: f_k(u, x) → (..., n).
        durations: δ_k > 0, shape (K,); all 1 by default. Kept as logarithms, so that they stay positive. Numbers get
            the dtype of the fields' parameters, a tensor keeps its own.
        start: t_0.
        trainable: whether the durations are parameters; otherwise they are a buffer. Either way in checkpoints.

    Raises:
        FieldError: no fields, or durations that are not positive or not as many.

    Example:
        >>> stack = SegmentedField([lambda u, x: x, lambda u, x: -x], [1.0, 2.0])
        >>> stack.integrate(torch.ones(1).double(), steps=16)[:, 0]
        tensor([1.0000, 2.7183, 0.3679], dtype=torch.float64)
    """

    log_durations: Tensor

    def __init__(
        self,
        fields: Sequence[Field],
        durations: Sequence[float] | Tensor | None = None,
        *,
        start: float = 0.0,
        trainable: bool = False,
    ) -> None:
        super().__init__()
        self.fields, self.start = tuple(fields), float(start)
        if not isinstance(durations, Tensor):
            numbers = [1.0] * len(self.fields) if durations is None else list(durations)
            durations = torch.tensor(numbers, dtype=_dtype_of(self.fields))
        values = durations.detach()
        if (
            not self.fields
            or not values.is_floating_point()
            or values.shape != (len(self.fields),)
            or not bool((values > 0).all())
        ):
            raise FieldError(
                f"Expected at least one field and as many positive durations, got {len(self.fields)} and "
                f"{values.tolist()}. Give one duration for each field."
            )
        for i, field in enumerate(self.fields):
            if isinstance(field, nn.Module):
                self.add_module(str(i), field)
        if trainable:
            self.log_durations = nn.Parameter(values.log())
        else:
            self.register_buffer("log_durations", values.log())

    @property
    def durations(self) -> Tensor:
        """The δ_k, shape (K,)."""
        return self.log_durations.exp()

    @property
    def knots(self) -> Tensor:
        """Where segments begin, and the end of the last: t_0 < … < t_K, shape (K + 1,)."""
        durations = self.durations
        return self.start + torch.cat([durations.new_zeros(1), durations.cumsum(0)])

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Return dx/dt, shape (..., n), for t of shape () and x of shape (..., n); on a knot from the right."""
        t, knots = one_time(t, x), self.knots.to(x)
        k = int((t.detach() >= knots[1:-1]).sum())
        return self.fields[k]((t - knots[k]) / (knots[k + 1] - knots[k]), x)

    def segment(self, k: int) -> Segment:
        """Return u ↦ δ_k f_k(u, x), to be integrated from 0 to 1."""
        return Segment(self.fields[k], self.log_durations, k)

    def integrate(
        self, x: Tensor, method: str = "rk4", steps: int = 8, *, adjoint: bool = False, **settings: Any
    ) -> Tensor:
        """Integrate segment by segment.

        Args:
            x: the state at t_0, shape (..., n).
            method: of torchdiffeq, fixed-step or adaptive.
            steps: in each segment, equal; adaptive methods choose their own.
            adjoint: whether gradients come from the adjoint equation (``odeint_adjoint``).
            **settings: of ``odeint``, such as ``rtol``.

        Returns:
            The states at the knots, shape (K + 1, ..., n).

        Raises:
            FieldError: less than one step, or no torchdiffeq.
        """
        if steps < 1:
            raise FieldError(f"Expected steps >= 1 for steps, got {steps}.")
        odeint, states = solver_of(adjoint), [x]
        times = torch.linspace(0, 1, (1 if method in ADAPTIVE else steps) + 1).to(x)
        for k in range(len(self.fields)):
            states.append(odeint(self.segment(k), states[-1], times, method=method, **settings)[-1])
        return torch.stack(states)

    def options(self, method: str, steps: int = 8) -> dict[str, Any]:
        """Return the ``options`` of ``odeint`` for a method, so that no stage is in a segment that its step is not in.

        Args:
            method: fixed-step or adaptive.
            steps: in each segment, for fixed-step methods.
        """
        return options_through(self, method, steps)


def _dtype_of(fields: Sequence[Field]) -> torch.dtype:
    """That of the first parameter: ``odeint_adjoint`` wants one dtype for states and parameters."""
    modules = (field for field in fields if isinstance(field, nn.Module))
    return next((p.dtype for module in modules for p in module.parameters()), torch.float64)


class Segment(nn.Module):
    """u ↦ δ f(u, x), from u = 0 to 1: a field for its duration.

    Args:
        field: f(u, x) → (..., n).
        log_durations: of all segments, shape (K,).
        index: which of them.
    """

    def __init__(self, field: Field, log_durations: Tensor, index: int) -> None:
        super().__init__()
        self.field, self.log_durations, self.index = field, log_durations, index

    def forward(self, u: Tensor, x: Tensor) -> Tensor:
        """Return dx/du, shape (..., n), for u of shape () and x of shape (..., n)."""
        return self.log_durations[self.index].exp().to(x) * self.field(one_time(u, x), x)
