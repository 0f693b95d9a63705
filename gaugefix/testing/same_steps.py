"""SameSteps: a solver that chooses its own steps takes the same ones again, whatever the parameters have become."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gaugefix.solver_hooks import in_this_thread, replaced, solver_modules

_NEVER = 1e30
"""A tolerance that every error meets."""


class SameSteps:
    """The solves of torchdiffeq within :meth:`kept` take the steps that they took within it the first time.

    A change of gauge commutes with every stage of every method, but not with the choice of steps: that measures errors
    with a norm, which is another one for other coordinates. So an adaptive solver gives the same function only up to
    its tolerance (1e-7 by default), far above rounding. Here it chooses its steps once, as it always does, and takes
    them again afterwards: what still changes is rounding, or a symmetry that is false.

    Implicit methods correct once in place of until their tolerance is met; solvers of SciPy, whose steps are out of
    reach, are replaced by dopri5.

    Example:
        >>> from torchdiffeq import odeint
        >>> times, steps = torch.tensor([0.0, 1.0]), SameSteps()
        >>> def evaluations(rate: float) -> int:
        ...     calls = []
        ...     with steps.kept():
        ...         odeint(lambda t, x: calls.append(t) or rate * x, torch.ones(3), times)
        ...     return len(calls)
        >>> evaluations(-1.0) - evaluations(-30.0)  # two to choose the first step, once
        1
    """

    def __init__(self) -> None:
        self._chosen: list[list[Tensor]] = []
        self._next = 0

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Record the steps of each solve, or repeat them if there are any of the same solve."""
        modules = solver_modules()
        if modules is None:
            yield
            return
        self._next = 0
        with replaced(modules[0], {"_check_inputs": lambda original: in_this_thread(self._wrap(original), original)}):
            yield

    def _wrap(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def check(func: Any, y0: Any, t: Any, rtol: Any, atol: Any, method: Any, options: Any, *rest: Any) -> Any:
            if method == "scipy_solver":
                method, options = "dopri5", None
            checked = list(original(func, y0, t, rtol, atol, method, options, *rest))
            names = ("shapes", "func", "y0", "t", "rtol", "atol", "method", "options", "event_fn", "reversed")
            given = dict(zip(names, checked, strict=True))
            solver = rest[-1][given["method"]]
            if hasattr(solver, "tableau") and given["event_fn"] is None:
                self._keep(given)
            elif hasattr(solver, "_has_converged"):
                given["rtol"] = _NEVER
            return tuple(given.values())

        return check

    def _keep(self, given: dict[str, Any]) -> None:
        number, self._next = self._next, self._next + 1
        if number == len(self._chosen):
            ends: list[Tensor] = []
            self._chosen.append(ends)
            told = given["func"].callback_accept_step

            def note(t0: Tensor, y0: Any, dt: Tensor) -> Any:
                ends.append(t0 + dt)
                return told(t0, y0, dt)

            given["func"].callback_accept_step = note
        elif self._chosen[number]:
            given.update(rtol=_NEVER, atol=_NEVER, options={**given["options"], **self._steps(number, given)})

    def _steps(self, number: int, given: dict[str, Any]) -> dict[str, Any]:
        """Options under which every step reaches for more than the whole, and is cut short at the next end."""
        ends = torch.stack(self._chosen[number])
        whole = 2.0 * float(ends[-1] - given["t"][0]) + 1.0
        jumps = given["options"].get("jump_t")
        if jumps is not None:  # which the solver stops at anyway
            apart = (ends[:, None] - jumps.to(ends)[None]).abs().amin(1) if len(jumps) else torch.ones_like(ends)
            ends = ends[apart > 1e-12 * whole]
        reach = {"first_step": whole, "min_step": whole, "max_step": 2.0 * whole}
        return {**reach, "step_t": ends}
