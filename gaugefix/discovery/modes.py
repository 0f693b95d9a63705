"""Leave out a trace that says nothing new: many models differ between eval and train mode by their dropouts only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from gaugefix.discovery.aliasing import is_mutable
from gaugefix.discovery.call import bind
from gaugefix.discovery.capture import Capture

_DROPOUTS = frozenset(
    f"aten.{name}{place}"
    for name in ("dropout", "native_dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
    for place in ("", "_")
)
_PROBABILITY = {**dict.fromkeys(_DROPOUTS, "p"), "aten.scaled_dot_product_attention": "dropout_p"}


def without_repeats(captures: tuple[Capture, ...]) -> tuple[Capture, ...]:
    """Drop the trace of eval mode if that of train mode is the same with more dropout, and so demands no less."""
    if len(captures) == 2 and _differ_by_dropouts(*captures):
        return captures[1:]
    return captures


def _differ_by_dropouts(calm: Capture, active: Capture) -> bool:
    first, second = _without_copies(calm), _without_copies(active)
    if len(first) != len(second):
        return False
    twins: dict[fx.Node, fx.Node] = {}
    for a, b in zip(first, second, strict=True):
        if a.op != b.op or _shapes(a) != _shapes(b):
            return False
        if a.op in ("placeholder", "get_attr"):
            if a.target != b.target or not _same_content(a, calm, active):
                return False
        elif a.op == "call_function":
            if a.target != b.target or not _same_call(a, b, twins):
                return False
        elif not _same(a.args, b.args, twins):
            return False
        twins[a] = twins[b] = b
    return True


def _without_copies(capture: Capture) -> list[fx.Node]:
    """All nodes but those that lay data out anew, which is the same unless something is changed in place."""
    nodes = list(capture.nodes())
    if any(is_mutable(node) for node in nodes if node.op == "call_function"):
        return nodes
    return [node for node in nodes if not _lays_out(node)]


def _lays_out(node: fx.Node) -> bool:
    return node.op == "call_function" and str(node.target) == "aten.contiguous.default"


def _same_call(a: fx.Node, b: fx.Node, twins: dict[fx.Node, fx.Node]) -> bool:
    calm, active = bind(a, a.args, a.kwargs), bind(b, b.args, b.kwargs)
    probability = _PROBABILITY.get(calm.name)
    if probability is None:
        return _same(a.args, b.args, twins) and _same(dict(a.kwargs), dict(b.kwargs), twins)
    if calm.get(probability, 0.0) not in (0.0, active.get(probability, 0.0)):
        return False
    free = (probability, "train") if calm.name in _DROPOUTS else (probability,)
    first, second = (
        {name: value for name, value in call.arguments.items() if name not in free} for call in (calm, active)
    )
    return _same(first, second, twins)


def _same(a: Any, b: Any, twins: dict[fx.Node, fx.Node]) -> bool:
    """Whether two (nested) arguments are the same, nodes in place of their twins."""
    if isinstance(a, fx.Node):
        return isinstance(b, fx.Node) and _twin(a, twins) is _twin(b, twins)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(_same, a, b, [twins] * len(a)))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[k], b[k], twins) for k in a)
    return type(a) is type(b) and bool(a == b)


def _twin(node: fx.Node, twins: dict[fx.Node, fx.Node]) -> fx.Node:
    while node not in twins and _lays_out(node):
        node = node.args[0]  # type: ignore[assignment]
    return twins.get(node, node)


def _same_content(node: fx.Node, calm: Capture, active: Capture) -> bool:
    """Whether a placeholder or attribute stands for the same parameter, buffer or constant in both traces."""
    name = str(node.target)
    if calm.parameters.get(name) != active.parameters.get(name):
        return False
    if calm.buffers.get(name, ("",))[0] != active.buffers.get(name, ("",))[0]:
        return False
    one, other = calm.constants.get(name), active.constants.get(name)
    if one is None or other is None:
        return one is other
    return one is other or (one.device == other.device and (one.is_meta or torch.equal(one, other)))


def _shapes(node: fx.Node) -> Any:
    value = node.meta.get("val")
    values = value if isinstance(value, (list, tuple)) else [value]
    return [(tuple(v.shape), v.dtype) if isinstance(v, Tensor) else type(v) for v in values]
