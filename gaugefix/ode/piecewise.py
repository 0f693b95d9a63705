"""How a solver gets over the jumps of a field that is smooth between them only."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from gaugefix.errors import FieldError, did_you_mean
from gaugefix.ode.grid import grid_through

FIXED = ("euler", "midpoint", "heun2", "heun3", "rk4")
"""Methods of torchdiffeq that take the steps that they are given."""
ADAPTIVE = ("adaptive_heun", "bosh3", "dopri5", "dopri8", "fehlberg2")
"""Methods of torchdiffeq that choose their steps, and can be told where a field jumps."""


class Jumping(Protocol):
    """A field that says where it jumps."""

    @property
    def knots(self) -> Tensor:
        """Times, increasing, with both ends, shape (segments + 1,)."""
        ...


def options_through(field: Jumping, method: str, steps: int = 1) -> dict[str, Any]:
    """Return the options of ``odeint`` with which no stage of a step is in a segment that the step is not in.

    Fixed-step methods step on the knots; ``perturb`` moves their first stage to just after a knot, and one at the end
    of a step to just before. Adaptive methods start afresh at each knot (``jump_t``).

    Args:
        field: it jumps at its knots, and takes its value there from the right.
        method: of torchdiffeq.
        steps: steps of equal length in each segment, for fixed-step methods.

    Returns:
        A fresh dictionary, for ``odeint`` and ``odeint_adjoint``, forward and backward in time.

    Raises:
        FieldError: a method that is unknown, or that remembers more than one step.
    """
    if method in ADAPTIVE:
        return {"jump_t": field.knots.detach().clone()}
    if method not in FIXED:
        raise FieldError(
            f"Expected a one-step method for method, got {method!r}. {did_you_mean(method, FIXED + ADAPTIVE)}"
        )

    def grid(_field: Any, _x: Tensor, times: Tensor) -> Tensor:
        return grid_through(refine(field.knots, steps), times)

    return {"grid_constructor": grid, "perturb": True}


def refine(knots: Tensor, steps: int) -> Tensor:
    """Return knots and between each two of them ``steps`` - 1 more, shape (segments · steps + 1,).

    Example:
        >>> refine(torch.tensor([0.0, 1.0, 3.0]), 2)
        tensor([0.0000, 0.5000, 1.0000, 2.0000, 3.0000])
    """
    fractions = torch.arange(steps).to(knots) / steps
    return torch.cat([(knots[:-1, None] + knots.diff()[:, None] * fractions).flatten(), knots[-1:]])
