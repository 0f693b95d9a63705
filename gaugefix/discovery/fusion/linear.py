"""Products with a transposed weight: x @ Wᵀ is what a linear layer computes, under another name."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from gaugefix.discovery.capture import Capture
from gaugefix.discovery.fusion.regions import name_of

_TURNS = frozenset(["aten.t", "aten.numpy_T", "aten.mT", "aten.transpose", "aten.permute"])


def name_linear_maps(capture: Capture) -> None:
    """Rewrite ``x @ Wᵀ`` of a parameter W with two axes as ``linear(x, W)``, in place."""
    for node in capture.graph.nodes:
        if node.op != "call_function" or name_of(node) not in ("aten.matmul", "aten.mm") or len(node.args) != 2:
            continue
        x, turned = node.args
        if not isinstance(turned, fx.Node) or not isinstance(x, fx.Node) or x is turned:
            continue
        if turned.op == "call_function" and _is_matrix(turned.args[0], capture) and _turns(turned):
            node.target = torch.ops.aten.linear.default
            node.args = (x, turned.args[0])


def _turns(node: fx.Node) -> bool:
    """Whether the operation exchanges the two axes of a matrix (a permutation may leave them in place)."""
    if name_of(node) not in _TURNS:
        return False
    turned: Tensor = node.target(torch.zeros(1, 2), *node.args[1:])  # type: ignore[operator]
    return tuple(turned.shape) == (2, 1)


def _is_matrix(item: object, capture: Capture) -> bool:
    """Whether this is a parameter with two axes, which every operation in the table turns."""
    if not isinstance(item, fx.Node) or item.op != "placeholder" or item.name not in capture.parameters:
        return False
    value = item.meta.get("val")
    return isinstance(value, Tensor) and value.ndim == 2
