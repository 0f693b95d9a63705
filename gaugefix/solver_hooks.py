"""The places in torchdiffeq that every solve goes through, replaced for a while, whoever imported what from where."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_PACKAGE = "torchdiffeq"
_FORWARD, _ADJOINT = "torchdiffeq._impl.odeint", "torchdiffeq._impl.adjoint"
_LOCK = threading.RLock()


def solver_modules() -> tuple[ModuleType, ModuleType] | None:
    """The modules of torchdiffeq that hold ``odeint`` and ``odeint_adjoint``.

    ``None`` if nobody has imported it, or if a version of it has other places than 0.2.4 and 0.2.5: then solves go
    through unchanged.
    """
    forward, adjoint = sys.modules.get(_FORWARD), sys.modules.get(_ADJOINT)
    known = all(hasattr(forward, name) for name in ("_check_inputs", "SOLVERS")) and all(
        hasattr(adjoint, name) for name in ("_check_inputs", "OdeintAdjointMethod")
    )
    return (forward, adjoint) if known and forward is not None and adjoint is not None else None


def import_solvers_again() -> None:
    """Import torchdiffeq anew: its coefficients are tensors, and those made within a trace hold no numbers."""
    for name in [name for name in sys.modules if name.split(".")[0] == _PACKAGE]:
        del sys.modules[name]
    importlib.import_module(_PACKAGE)


@contextmanager
def replaced(module: ModuleType, changes: Mapping[str, Callable[[Any], Any]]) -> Iterator[None]:
    """Replace globals of a module for a while.

    ``odeint`` looks up what it calls when it runs, so that it does not matter under which name a model holds it.

    Args:
        module: whose globals are replaced.
        changes: name → function from what is there to what takes its place.

    Example:
        >>> import math
        >>> with replaced(math, {"sqrt": lambda original: lambda x: original(x) + 1.0}):
        ...     math.sqrt(4.0)
        3.0
        >>> math.sqrt(4.0)
        2.0
    """
    with _LOCK:  # a second thread waits, or it would put back what the first has put there
        originals = {name: getattr(module, name) for name in changes}
        try:
            for name, change in changes.items():
                setattr(module, name, change(originals[name]))
            yield
        finally:
            for name, original in originals.items():
                setattr(module, name, original)


def in_this_thread(new: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is ``new`` for the thread that asks now, and ``original`` for all others."""
    owner = threading.get_ident()

    def call(*args: Any, **kwargs: Any) -> Any:
        return (new if threading.get_ident() == owner else original)(*args, **kwargs)

    return call
