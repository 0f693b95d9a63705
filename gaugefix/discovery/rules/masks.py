"""Fixed alternatives: where and masked_fill, above all the masks of attention scores."""

from __future__ import annotations

from torch import fx

from gaugefix.discovery.call import Call, as_value
from gaugefix.discovery.fusion.regions import name_of
from gaugefix.discovery.interpreter import Pass
from gaugefix.discovery.labels import NOTHING
from gaugefix.discovery.rules.arithmetic import alike_in_heads
from gaugefix.discovery.rules.product import multiply_values
from gaugefix.discovery.rules.registry import register
from gaugefix.discovery.value import Value

LARGE, HUGE = -1e4, -1e30
"""Below the first a softmax gives 0 beside scores of ordinary size; the second absorbs them."""


def gate(ctx: Pass, call: Call) -> Value:
    """where(condition, x, fill) and masked_fill: a fixed number, or plain data, in place of some entries.

    A fill of 0 is a product with data. Heads may change places if mask and fill are the same for all. A number that is
    added to a whole row of scores is added to all entries but the filled ones: a softmax does not see it if these have
    no weight.
    """
    mask, x, fill = _parts(call)
    if not (mask.inert and fill.inert) or tuple(x.shape) != tuple(call.shape):
        ctx.freeze([mask, x, fill], f"{call.name} mixes a value with a fixed one")
        return Value(call.shape)
    if fill.known is not None and bool((fill.known == 0).all()) and x.legs:
        return multiply_values(ctx, x, Value(mask.shape), call.shape)
    for leg in x.legs:
        ctx.labels.restrict(leg, NOTHING, f"{call.name} mixes a value with a fixed one")
    heads = ctx.keep_heads(x) if alike_in_heads(mask) and alike_in_heads(fill) else None
    if not x.pending or not _without_weight(fill, call):
        return Value(call.shape, heads=heads)
    return Value(call.shape, pending=ctx.carry(x, masked=True), masked=True, heads=heads)


def _parts(call: Call) -> tuple[Value, Value, Value]:
    """The mask, the value, and what stands in for it."""
    if call.name.startswith("aten.masked_fill"):
        x, mask, fill = (as_value(item) for item in call.positional[:3])
        return mask, x, fill
    mask, x, fill = (as_value(item) for item in call.positional[:3])
    return (mask, fill, x) if x.inert else (mask, x, fill)


def _without_weight(fill: Value, call: Call) -> bool:
    """Whether a softmax gives the filled entries no weight, wherever another entry has some."""
    if fill.known is None:
        return False
    highest = float(fill.known.max())
    return highest <= HUGE or (highest <= LARGE and _plain_scores(call.node))


def _plain_scores(node: fx.Node) -> bool:
    """Whether what is filled is a product times a number: a mask that was added before could reach as low."""
    sources = [source for source in node.args if isinstance(source, fx.Node)]
    below = [source for source in sources if not _is_mask(source)]
    if len(below) != 1:
        return False
    (current,) = below
    while current.op == "call_function" and name_of(current).removesuffix("_") in _SCALED:
        if not isinstance(current.args[0], fx.Node) or any(isinstance(a, fx.Node) for a in current.args[1:]):
            return False
        current = current.args[0]
    return current.op == "call_function" and name_of(current) in _PRODUCTS


def _is_mask(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return value is None or not value.is_floating_point() or value.ndim == 0


_MOVED = ["to", "_to_copy", "contiguous", "clone", "view", "reshape", "_unsafe_view", "unsqueeze"]
_SCALED = frozenset(f"aten.{name}" for name in ["mul", "div", *_MOVED])
_PRODUCTS = frozenset(["aten.matmul", "aten.bmm", "aten.mm", "aten.einsum"])

register("aten.where aten.masked_fill", gate, "a fixed alternative")
