"""What is attached to parameters: gradients and optimizer states, each with its law of transport."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from gaugefix.errors import TransportError
from gaugefix.symmetry import GRADIENT
from gaugefix.transport.laws import INVARIANT, LAWS, Policy


@dataclass(frozen=True, eq=False)
class Attached:
    """A tensor that moves with a parameter.

    Args:
        parameter: its name.
        tensor: what moves, in the shape of the parameter.
        law: how it moves.
        kind: the same for all tensors that are parts of one vector (all gradients, all first moments of one optimizer).
        sparse_of: the parameter whose sparse gradient ``tensor`` is a dense copy of.
    """

    parameter: str
    tensor: Tensor
    law: int
    kind: object = None
    sparse_of: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Attachments:
    """What moves along, and the ``(optimizer, parameter)`` states to clear."""

    along: list[Attached] = field(default_factory=list)
    clear: list[tuple[Optimizer, Tensor]] = field(default_factory=list)


def attached(
    parameters: Mapping[str, Tensor], optimizers: Iterable[Optimizer], unknown: Policy = "error"
) -> Attachments:
    """Find the gradients and optimizer states of ``parameters``.

    Args:
        parameters: those whose gradients are going to move, by name.
        optimizers: any number of optimizers (each counts once).
        unknown: what to do with a state that has no law: ``"error"`` refuses, ``"reset"`` clears the state of the
            parameters that move, ``"ignore"`` leaves it in the old gauge.

    Raises:
        TransportError: for a policy that does not exist, for something that is no optimizer, and under
            ``unknown="error"`` for a state without a law, naming optimizer, entry and mend.
    """
    if unknown not in get_args(Policy):
        raise TransportError(
            f"Expected 'error', 'reset' or 'ignore' for unknown_optimizer, got '{unknown}'. Choose one of them."
        )
    names = {id(p): name for name, p in parameters.items()}
    found = Attachments([_gradient(name, p, p.grad) for name, p in parameters.items() if p.grad is not None])
    for optimizer in _unique(_unwrapped(optimizers)):
        owned = list(_unique(p for group in optimizer.param_groups for p in group["params"]))
        if not any(id(p) in names for p in owned):
            continue
        for p in owned:
            state = optimizer.state.get(p)
            if not state or (id(p) not in names and not _of_all(state, owned)):
                continue
            entries = _read_state(optimizer, p, names.get(id(p)), state)
            if not isinstance(entries, str):
                found.along.extend(entries)
            elif unknown == "error":
                raise TransportError(entries)
            elif unknown == "reset":
                found.clear.append((optimizer, p))
    return found


def _gradient(name: str, p: Tensor, gradient: Tensor) -> Attached:
    if gradient.layout == torch.strided:
        return Attached(name, gradient, GRADIENT, "gradient")
    return Attached(name, gradient.to_dense(), GRADIENT, "gradient", p)


def _unwrapped(optimizers: Iterable[Any]) -> Iterator[Optimizer]:
    """The optimizers themselves: Lightning hands out wrappers, which pretend to be of the class of what they wrap."""
    if isinstance(optimizers, Optimizer):
        raise TransportError(
            f"Expected an iterable of optimizers, got one {type(optimizers).__name__}. Put it into a list."
        )
    for optimizer in optimizers:
        inner = getattr(optimizer, "optimizer", None)
        while isinstance(inner, Optimizer) and (
            not isinstance(optimizer, Optimizer) or type(inner) in type(optimizer).__mro__
        ):
            optimizer, inner = inner, getattr(inner, "optimizer", None)
        if not isinstance(optimizer, Optimizer):
            raise TransportError(
                f"Expected a torch.optim.Optimizer in optimizers, got {type(optimizer).__name__}. Pass the optimizer "
                "that holds the state."
            )
        yield optimizer


def _unique(items: Iterable[Any]) -> Iterator[Any]:
    return iter({id(item): item for item in items}.values())


def _read_state(optimizer: Optimizer, p: Tensor, name: str | None, state: Mapping[str, Any]) -> list[Attached] | str:
    """The state entries of one parameter with their laws, or why there are none."""
    laws = next((LAWS[base.__name__] for base in type(optimizer).__mro__ if base.__name__ in LAWS), None)
    kind = type(optimizer).__name__
    holding = {key: value for key, value in state.items() if any(True for _ in _tensors(value))}
    if laws is None and holding:
        return (
            f"Expected an optimizer with known laws of transport, got {kind} with state {sorted(holding)} for "
            f"'{name or 'all parameters'}'. Use one of {', '.join(sorted(LAWS))}; or pass unknown_optimizer='reset' to "
            "clear the state of the parameters that move ('ignore' to leave it), or add a row with "
            "gaugefix.transport.register_optimizer."
        )
    entries = []
    for key, value in holding.items():
        law = (laws or {}).get(key)
        fits = isinstance(value, Tensor) and value.shape == p.shape and value.layout == torch.strided
        if law is None or (law != INVARIANT and not fits):
            if law is None and isinstance(value, Tensor) and value.numel() == 1 and not fits:
                continue  # a counter of some kind
            shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
            return (
                f"Expected known state entries in the shape of the parameter for {kind}, got '{key}'{shape} for "
                f"'{name}'. Pass unknown_optimizer='reset' to clear the state of the parameters that move ('ignore' to "
                "leave it), or add its law with gaugefix.transport.register_optimizer."
            )
        if law != INVARIANT and name is not None:
            entries.append(Attached(name, value, law, (id(optimizer), key)))
    return entries


def _of_all(state: Mapping[str, Any], owned: list[Tensor]) -> bool:
    """Whether the state of one parameter holds vectors over all of them (as that of LBFGS does)."""
    total = sum(p.numel() for p in owned)
    return len(owned) > 1 and any(t.numel() == total for value in state.values() for t in _tensors(value))


def _tensors(item: Any) -> Iterator[Tensor]:
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, (list, tuple)):
        for part in item:
            yield from _tensors(part)
    elif isinstance(item, Mapping):
        yield from _tensors(list(item.values()))
