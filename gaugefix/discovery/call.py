"""One operation of a captured graph, with its arguments by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx

from gaugefix.discovery.value import Value


@dataclass(frozen=True, eq=False)
class Call:
    """One operation of the graph with its arguments by schema name."""

    node: fx.Node
    name: str
    arguments: Mapping[str, Any]
    positional: Sequence[Any]
    shapes: tuple[tuple[int, ...], ...]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return an argument, ``default`` if it is absent or None."""
        value = self.arguments.get(name, default)
        return default if value is None else value

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the (first) result."""
        return self.shapes[0]

    @property
    def input(self) -> Value:
        """The first argument."""
        return as_value(self.positional[0])


def as_value(item: Any) -> Value:
    """A number is a value that is known, to all digits of a Python float."""
    if isinstance(item, Value):
        return item
    tensor = torch.as_tensor(item, dtype=torch.float64 if isinstance(item, float) else None)
    return Value(tuple(tensor.shape), known=tensor)


def bind(node: fx.Node, args: Any, kwargs: Any) -> Call:
    """Name the arguments of a call by its schema, defaults filled in."""
    packet, names, defaults = _signature(node.target)
    arguments: dict[str, Any] = {**defaults, **kwargs, **dict(zip(names, args, strict=False))}
    meta = node.meta.get("val")
    results = meta if isinstance(meta, (list, tuple)) else [meta]
    shapes = tuple(tuple(int(d) for d in m.shape) if isinstance(m, Tensor) else () for m in results)
    return Call(node, packet, arguments, list(args), shapes)


@cache
def _signature(target: Any) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    """Packet of an operation, the names of its arguments in order, and their defaults."""
    schema = getattr(target, "_schema", None)
    arguments = () if schema is None else schema.arguments
    defaults = {argument.name: argument.default_value for argument in arguments if argument.has_default_value()}
    return ".".join(str(target).split(".")[:2]), tuple(argument.name for argument in arguments), defaults


def convolution_layout(node: fx.Node) -> tuple[int, bool, bool]:
    """``(groups, transposed, is a kernel)`` of a parameter that convolutions read as their weight."""
    for user in node.users:
        name = str(user.target)
        if user.op == "call_function" and "conv" in name and len(user.args) > 1 and user.args[1] is node:
            call = bind(user, user.args, user.kwargs)
            return int(call.get("groups", 1)), "transpose" in name, True
    return 1, False, False
