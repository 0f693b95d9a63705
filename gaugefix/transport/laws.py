"""The laws of transport as a table: what each entry of an optimizer's state is, and so how it moves.

A parameter moves by g, its gradient and every linear average of gradients by g⁻ᵀ, a squared gradient by the
elementwise square of that (exact for diagonal g; for others it neglects correlations between entries: see
docs/transport.md for how much).
"""

from __future__ import annotations

from typing import Literal

from gaugefix.errors import TransportError
from gaugefix.symmetry import GRADIENT, RATIO, SQUARED_GRADIENT

INVARIANT = 0
"""One more law of transport: a step count or a schedule, the same in every gauge."""

_ADAM = {"step": INVARIANT, "exp_avg": GRADIENT, "exp_avg_sq": SQUARED_GRADIENT, "max_exp_avg_sq": SQUARED_GRADIENT}

LAWS: dict[str, dict[str, int]] = {
    "SGD": {"momentum_buffer": GRADIENT},
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "NAdam": {**_ADAM, "mu_product": INVARIANT},
    "RAdam": _ADAM,
    "Adagrad": {"step": INVARIANT, "sum": SQUARED_GRADIENT},
    # An average of gradients; its orthogonal factor is taken at every step anew, and is no state.
    "Muon": {"momentum_buffer": GRADIENT},
    # buf = μ·buf + g/√v: gradients over roots of squared gradients.
    "RMSprop": {"step": INVARIANT, "square_avg": SQUARED_GRADIENT, "grad_avg": GRADIENT, "momentum_buffer": RATIO},
}
"""Optimizer class name → state entry → law. Add a row to support an optimizer; see also :func:`register_optimizer`."""

Policy = Literal["error", "reset", "ignore"]


def register_optimizer(name: str, laws: dict[str, int]) -> None:
    """Add the laws of an optimizer class (matched by name along its bases).

    Args:
        name: class name, e.g. ``"Lion"``.
        laws: state entry → GRADIENT, SQUARED_GRADIENT, RATIO or INVARIANT.

    Raises:
        TransportError: if the class has a row already, or a law does not exist.
    """
    if name in LAWS:
        raise TransportError(f"Expected an optimizer without laws, got '{name}', which has them. Choose another name.")
    for entry, law in laws.items():
        if law not in (GRADIENT, SQUARED_GRADIENT, RATIO, INVARIANT):
            raise TransportError(
                f"Expected a law for entry '{entry}' of {name}, got {law!r}. Use GRADIENT, SQUARED_GRADIENT, RATIO or "
                "INVARIANT of gaugefix.transport."
            )
    LAWS[name] = dict(laws)
