"""Let ``odeint`` and ``odeint_adjoint`` of torchdiffeq leave their field in the captured graph, and no solver."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NoReturn

from torch import Tensor
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from gaugefix.discovery.flow_ops import moment, state, velocity
from gaugefix.errors import DiscoveryError
from gaugefix.solver_hooks import in_this_thread, replaced, solver_modules

State = Tensor | tuple[Tensor, ...]

_METHOD = "gaugefix.flow"
_MEND = (
    "Analyse a submodule without it (module='encoder' in a callback, model.encoder here), or state symmetries by hand "
    "with gaugefix.declare."
)


@contextmanager
def flows_captured() -> Iterator[None]:
    """Within, a solve evaluates its field once, at a state and a time that stand for all.

    A constant affine change of the state, x → G x + c, commutes with the flow if and only if it commutes with the field
    at all times. It then commutes with every method of given steps too: stages and steps need no trace of their own.

    Raises:
        DiscoveryError: on a solve that stops at an event, returns a function of time, or makes its steps of the state.
    """
    modules = solver_modules()
    if modules is None:
        yield
        return
    forward, adjoint = modules
    forward.SOLVERS[_METHOD] = _Flow
    try:
        with replaced(forward, _FORWARD), replaced(adjoint, _ADJOINT):
            yield
    except Exception as error:
        if any(frame.f_code.co_name == "odeint_dense" for frame, _ in traceback.walk_tb(error.__traceback__)):
            raise _refusal("odeint_dense, whose result is a function") from error
        raise
    finally:
        del forward.SOLVERS[_METHOD]


def _unchecked(
    func: Callable[..., Any],
    y0: State,
    t: Tensor,
    rtol: Any,
    atol: Any,
    method: str | None,
    options: Mapping[str, Any] | None,
    event_fn: Any,
    solvers: Mapping[str, Any],
) -> tuple[Any, ...]:
    """Take the place of ``_check_inputs``, which asks for the values of the times; tuples of states stay tuples."""
    if event_fn is not None:
        raise _refusal("odeint with event_fn (odeint_event), whose end depends on the state")
    if method is not None and method not in solvers:
        known = ", ".join(sorted({*solvers} - {_METHOD}))
        raise DiscoveryError(f"Expected a solver for method of odeint, got '{method}'. Available: {known}.")
    grid = (options or {}).get("grid_constructor")
    if grid is not None:
        _look_at_grid(grid, y0, t)
    return None, func, y0, t, rtol, atol, _METHOD, {"norm": None}, None, False


class _Flow:
    """Takes the place of a solver."""

    def __init__(self, func: Callable[..., Any], y0: State, **_: Any) -> None:
        self.func, self.y0 = func, y0

    def integrate(self, t: Tensor) -> State:
        return _flow(self.func, self.y0, t)


def _flow(func: Callable[..., Any], y0: State, t: Tensor) -> State:
    """Return states at all times, as ``odeint`` lays them out: (times, *state), or a tuple of such."""
    starts = y0 if isinstance(y0, tuple) else (y0,)
    now = moment(t).to(starts[0].device, starts[0].dtype.to_real())
    states = tuple(map(state, starts))
    try:
        found = func(now, states if isinstance(y0, tuple) else states[0])
    except GuardOnDataDependentSymNode as error:
        raise DiscoveryError(
            f"Expected a field that computes with its time and state as tensors, got {_name(func)}, which asks for a "
            f"value (if t < …, float(t), x.item()). Write it with torch.where or t.expand. {_MEND}"
        ) from error
    velocities = found if isinstance(y0, tuple) else (found,)
    ends = [x + velocity(v) for x, v in zip(states, velocities, strict=True)]
    paths = tuple(x.repeat(len(t), *[1] * x.ndim) for x in ends)
    return paths if isinstance(y0, tuple) else paths[0]


def _adjoint_flow(shapes: Any, func: Callable[..., Any], y0: State, t: Tensor, *_: Any) -> State:
    return _flow(func, y0, t)


def _refusal(what: str) -> DiscoveryError:
    return DiscoveryError(f"Expected solves by odeint or odeint_adjoint, got {what}. {_MEND}")


def _name(func: Callable[..., Any]) -> str:
    return getattr(func, "__qualname__", type(func).__name__)


class _Unread:
    """What a grid of steps may be given, but not read: it may ask for a type or a shape, but not for a value."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __getattr__(self, name: str) -> Any:
        if name in ("device", "dtype", "shape", "ndim"):
            return getattr(self._value, name)
        raise _refusal("odeint with a grid_constructor that reads the state or the field")

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise _refusal("odeint with a grid_constructor that reads the state or the field")


def _look_at_grid(grid: Callable[..., Any], y0: State, t: Tensor) -> None:
    try:
        grid(_Unread(None), _Unread(y0), t)
    except DiscoveryError:
        raise
    except Exception:
        return  # it asks for the values of the times, which a trace does not have; verify runs it as it is


_FORWARD: dict[str, Callable[[Any], Any]] = {
    "_check_inputs": lambda original: in_this_thread(_unchecked, original),
}
_ADJOINT: dict[str, Callable[[Any], Any]] = {
    "_check_inputs": _FORWARD["_check_inputs"],
    "OdeintAdjointMethod": lambda original: SimpleNamespace(apply=in_this_thread(_adjoint_flow, original.apply)),
}
