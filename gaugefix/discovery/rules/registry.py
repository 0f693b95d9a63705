"""The table of rules: operation → algebraic property, with the reason beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from gaugefix.discovery.call import Call
from gaugefix.discovery.interpreter import Pass
from gaugefix.errors import DiscoveryError

Rule = Callable[[Pass, Call], Any]


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    operation: str
    rule: Rule
    reason: str


_TABLE: dict[str, Row] = {}


def register(operations: str | Iterable[str], rule: Rule, reason: str, replace: bool = False) -> None:
    """Add a row to the table of rules.

    Args:
        operations: one or several names such as ``"aten.relu"`` or ``"mylib.myop"`` (no overload; the in-place
            variant with a trailing underscore is covered).
        rule: called as ``rule(pass_, call)``; returns the labelled result. The properties of this package
            (:class:`Elementwise`, ``move``, …) are rules.
        reason: why the property holds, in a few words.
        replace: whether an existing row may be replaced.

    Raises:
        DiscoveryError: if an operation has a row already and ``replace`` is false.

    Example:
        >>> from gaugefix.discovery import Elementwise, POSITIVE, register
        >>> register("mylib.leaky", Elementwise(POSITIVE), "leaky ReLU: f(λx) = λ f(x) for λ > 0", replace=True)
    """
    for name in operations.split() if isinstance(operations, str) else operations:
        if name in _TABLE and not replace:
            raise DiscoveryError(
                f"Expected an operation without a rule, got '{name}', which has one ({_TABLE[name].reason}). "
                "Pass replace=True to replace it."
            )
        _TABLE[name] = Row(name, rule, reason)


def rules() -> tuple[Row, ...]:
    """All rows, for tables and tests."""
    return tuple(_TABLE.values())


def find(name: str) -> Rule | None:
    """Return the rule of an operation, of its out-of-place variant, or of elementwise maps in general."""
    row = _TABLE.get(name) or _TABLE.get(name.removesuffix("_"))
    if row is not None:
        return row.rule
    return _TABLE["elementwise"].rule if _is_pointwise(name) else None


def _is_pointwise(name: str) -> bool:
    namespace, _, operation = name.partition(".")
    packet = getattr(getattr(torch.ops, namespace), operation, None) if namespace == "aten" else None
    if packet is None or not hasattr(packet, "overloads"):
        return False
    return any(torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads())
