"""Cut what is only asked for its shape: ``ones_like(x)`` is a constant, whatever x is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

_VALUE = {"ones_like": 1.0, "new_ones": 1.0, "zeros_like": 0.0, "new_zeros": 0.0}
_GIVEN = {"full_like": 1, "new_full": 2}
"""Place of the value among the arguments."""


def cut_shape_only(graph: fx.Graph) -> None:
    """Let tensors of one number, made in the shape or of the type of another, depend on that other no more.

    Fields append the time as ``torch.ones_like(x[:, :1]) * t``, and states are augmented by ``x.new_zeros(len(x), 2)``.
    Left as they are, the first would tell the first channel of x apart, and the second would be unknown. Whole numbers
    and truth values (positions, masks) stay as they are.

    Args:
        graph: changed in place.
    """
    for node in list(graph.nodes):
        made = node.meta.get("val")
        value = _number(node)
        if value is None or not isinstance(made, Tensor) or not made.is_floating_point():
            continue
        if not all(isinstance(size, int) for size in made.shape):
            continue
        with graph.inserting_before(node):
            options: dict[str, Any] = {"dtype": made.dtype, "device": made.device}
            constant = graph.call_function(torch.ops.aten.full.default, (list(made.shape), value), options)
        constant.meta = dict(node.meta)
        node.replace_all_uses_with(constant)
        graph.erase_node(node)


def _number(node: fx.Node) -> float | None:
    name = str(node.target).removeprefix("aten.").split(".")[0]
    if node.op != "call_function" or not str(node.target).startswith("aten."):
        return None
    given: Any = node.args[_GIVEN[name]] if name in _GIVEN and len(node.args) > _GIVEN[name] else None
    value = _VALUE.get(name, given)
    return float(value) if isinstance(value, (int, float)) else None
