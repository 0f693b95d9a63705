"""The laws of transport as a table: what each entry of an optimizer's state is, and so how it moves.

A parameter moves by g, its gradient and every linear average of gradients by g⁻ᵀ, a squared gradient by the
elementwise square of that (exact for diagonal g; for others it neglects correlations between entries).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gaugefix.errors import TransportError
from gaugefix.symmetry import GRADIENT, SQUARED_GRADIENT

INVARIANT = 0
"""A step count, a schedule, or a ratio of a gradient and the root of its square: the same in every gauge."""

_ADAM = {"step": INVARIANT, "exp_avg": GRADIENT, "exp_avg_sq": SQUARED_GRADIENT, "max_exp_avg_sq": SQUARED_GRADIENT}

LAWS: dict[str, dict[str, int]] = {
    "SGD": {"momentum_buffer": GRADIENT},
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "NAdam": {**_ADAM, "mu_product": INVARIANT},
    "RAdam": _ADAM,
    "Adagrad": {"step": INVARIANT, "sum": SQUARED_GRADIENT},
    # buf = μ·buf + g/√v: gradients over roots of squared gradients, so the buffer does not depend on the gauge.
    "RMSprop": {
        "step": INVARIANT,
        "square_avg": SQUARED_GRADIENT,
        "grad_avg": GRADIENT,
        "momentum_buffer": INVARIANT,
    },
}
"""Optimizer class name → state entry → law. Add a row to support an optimizer; see also :func:`register_optimizer`."""

Policy = Literal["error", "reset", "ignore"]


def register_optimizer(name: str, laws: dict[str, int]) -> None:
    """Add the laws of an optimizer class (matched by name along its bases).

    Args:
        name: class name, e.g. ``"Lion"``.
        laws: state entry → GRADIENT, SQUARED_GRADIENT or INVARIANT.

    Raises:
        TransportError: if the class has a row already.
    """
    if name in LAWS:
        raise TransportError(f"Expected an optimizer without laws, got '{name}', which has them. Choose another name.")
    LAWS[name] = dict(laws)


@dataclass(frozen=True, eq=False)
class Attached:
    """A tensor that moves with a parameter."""

    parameter: str
    tensor: Tensor
    law: int


def attached(
    parameters: dict[str, Tensor],
    optimizers: Iterable[torch.optim.Optimizer],
    unknown: Policy = "error",
) -> tuple[list[Attached], list[tuple[torch.optim.Optimizer, Tensor]]]:
    """Find the gradients and optimizer states of ``parameters``.

    Args:
        parameters: those that are going to move, by name.
        optimizers: any number of optimizers.
        unknown: what to do with a state that has no law: ``"error"`` refuses, ``"reset"`` clears the state of the
            parameters that move, ``"ignore"`` leaves it in the old gauge.

    Returns:
        What moves along, and the ``(optimizer, parameter)`` states to clear.

    Raises:
        TransportError: for a state without a law under ``unknown="error"``, naming optimizer, entry and mend.
        ValueError: for a policy that does not exist.
    """
    if unknown not in ("error", "reset", "ignore"):
        raise TransportError(
            f"Expected 'error', 'reset' or 'ignore' for unknown_optimizer, got '{unknown}'. Choose one of them."
        )
    names = {id(p): name for name, p in parameters.items()}
    found = [Attached(name, p.grad, GRADIENT) for name, p in parameters.items() if p.grad is not None]
    clear: list[tuple[torch.optim.Optimizer, Tensor]] = []
    for optimizer in optimizers:
        optimizer = _unwrapped(optimizer)
        laws = _laws_of(optimizer)
        for group in optimizer.param_groups:
            for p in group["params"]:
                if id(p) not in names or p not in optimizer.state:
                    continue
                entries = _read_state(optimizer, laws, p, names[id(p)])
                if isinstance(entries, str):
                    if unknown == "error":
                        raise TransportError(entries)
                    if unknown == "reset":
                        clear.append((optimizer, p))
                else:
                    found += entries
    return found, clear


def _unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Lightning hands out a wrapper around the optimizer."""
    inner = getattr(optimizer, "optimizer", optimizer)
    return inner if isinstance(inner, torch.optim.Optimizer) else optimizer


def _laws_of(optimizer: torch.optim.Optimizer) -> dict[str, int] | None:
    return next((LAWS[base.__name__] for base in type(optimizer).__mro__ if base.__name__ in LAWS), None)


def _read_state(
    optimizer: torch.optim.Optimizer, laws: dict[str, int] | None, p: Tensor, name: str
) -> list[Attached] | str:
    """The state entries of one parameter with their laws, or why there are none."""
    state = optimizer.state[p]
    kind = type(optimizer).__name__
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if laws is None and tensors:
        return (
            f"Expected an optimizer with known laws of transport, got {kind} with state {sorted(tensors)} for '{name}'. "
            "Use one of " + ", ".join(sorted(LAWS)) + "; or pass unknown_optimizer='reset' to clear the state of the "
            "parameters that move ('ignore' to leave it), or add a row with gaugefix.transport.register_optimizer."
        )
    entries = []
    for key, value in tensors.items():
        law = (laws or {}).get(key, None)
        if law is None:
            if value.shape != p.shape:
                continue  # a counter of some kind
            return (
                f"Expected known state entries for {kind}, got '{key}' for '{name}'. Pass unknown_optimizer='reset' or "
                "'ignore', or add its law with gaugefix.transport.register_optimizer."
            )
        if law != INVARIANT:
            entries.append(Attached(name, value, law))
    return entries
