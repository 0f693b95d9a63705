"""Values of a graph that depend neither on inputs nor on parameters, computed when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from gaugefix.discovery.aliasing import aliases, is_mutable
from gaugefix.discovery.capture import Capture


@dataclass(eq=False)
class Constants:
    """The constant part of one graph.

    Floating-point buffers may change during training, so they count as constants without a value: they are drawn at
    random, once. What then holds for the result (two equal entries, say) holds for every value of the buffers, up to
    chance.

    Args:
        capture: the graph.
        fixed: nodes that depend neither on inputs nor on parameters.
        changed: nodes that share memory with what is changed in place.
        alike: a number for each node of ``fixed``, the same for those that are computed in the same way.
    """

    capture: Capture
    fixed: set[fx.Node] = field(default_factory=set)
    changed: set[fx.Node] = field(default_factory=set)
    alike: dict[fx.Node, int] = field(default_factory=dict)
    _values: dict[fx.Node, Any] = field(default_factory=dict)
    _generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def __post_init__(self) -> None:
        for node in self.capture.graph.nodes:
            if node.op == "call_function" and is_mutable(node):
                self.changed |= aliases(node)
        numbers: dict[str, int] = {}
        given = {*self.capture.buffers, *self.capture.constants}
        for node in self.capture.graph.nodes:
            if node.op == "placeholder":
                constant = node.name in given
            elif node.op == "get_attr":
                constant = str(node.target) in self.capture.constants
            else:
                constant = node.op == "call_function" and not _is_random(node)
                constant = constant and all(source in self.fixed for source in node.all_input_nodes)
            if constant and node not in self.changed:
                self.fixed.add(node)
                self.alike[node] = numbers.setdefault(self._recipe(node), len(numbers))

    def _recipe(self, node: fx.Node) -> str:
        if node.op != "call_function":
            return str(node.target)
        args = fx.node.map_arg((node.args, dict(node.kwargs)), lambda source: f"%{self.alike[source]}")
        return f"{node.target}{args}"

    def value(self, node: fx.Node) -> Any:
        """The value of a node of :attr:`fixed`, on the CPU.

        Raises:
            RuntimeError: if an operation fails, as it does on tensors without data.
        """
        stack = [node]
        while stack:
            top = stack[-1]
            missing = [source for source in top.all_input_nodes if source not in self._values]
            if missing and top not in self._values:
                stack += missing
                continue
            stack.pop()
            if top not in self._values:
                self._values[top] = self._compute(top)
        return self._values[node]

    def _compute(self, node: fx.Node) -> Any:
        if node.op == "placeholder" and node.name in self.capture.buffers:
            return self._generic(self.capture.buffers[node.name][1])
        if node.op in ("placeholder", "get_attr"):
            key = node.name if node.op == "placeholder" else str(node.target)
            return self._generic(self.capture.constants[key], keep=True)
        return run_node(node, self._values)

    def _generic(self, tensor: Tensor, keep: bool = False) -> Tensor:
        if tensor.is_floating_point() and not (keep and tensor.device.type != "meta"):
            drawn = torch.randn(tensor.shape, generator=self._generator, dtype=torch.float64)
            return drawn.to(tensor.dtype)
        return tensor.detach().cpu()


def run_node(node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    """Run one operation on the CPU."""
    args = fx.node.map_arg(node.args, lambda source: values[source])
    kwargs = dict(fx.node.map_arg(node.kwargs, lambda source: values[source]))
    if kwargs.get("device") is not None:
        kwargs["device"] = torch.device("cpu")
    if kwargs.get("pin_memory"):
        kwargs["pin_memory"] = False
    return node.target(*_on_cpu(args), **kwargs)  # type: ignore[operator]


def _on_cpu(item: Any) -> Any:
    """Devices among the arguments, as in ``x.to(device)``."""
    if isinstance(item, torch.device):
        return torch.device("cpu")
    return type(item)(_on_cpu(part) for part in item) if isinstance(item, (list, tuple)) else item


def _is_random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
