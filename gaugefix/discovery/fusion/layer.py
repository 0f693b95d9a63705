"""Layer norms that are written out: (x − mean(x))·(var(x) + ε)^(−½) over the last axis, with casts in between."""

from __future__ import annotations

from torch import Tensor, fx

from gaugefix.discovery.call import bind
from gaugefix.discovery.fusion.regions import Region, name_of
from gaugefix.discovery.fusion.rms import CASTS, inside, mean_square, root_of, uncast


def layer_region(end: fx.Node) -> Region | None:
    """Return the region of a layer norm that ends at ``end``: a product with rsqrt, or a quotient with sqrt or std.

    Which variance it is (divided by n or by n − 1) makes no difference to what it ignores and couples.
    """
    name = name_of(end)
    if name not in ("aten.mul", "aten.div") or end.kwargs or not all(isinstance(a, fx.Node) for a in end.args[:2]):
        return None
    a, b = (uncast(argument) for argument in end.args[:2])  # type: ignore[arg-type]
    for x, factor in ((a, b), (b, a))[: 1 if name == "aten.div" else 2]:
        root = _centred(x)
        if root is None or not isinstance(root.meta.get("val"), Tensor):
            continue
        if _spread(factor, divides=name == "aten.div") is root:
            return _from_last_cast(root, end)
    return None


def _from_last_cast(root: fx.Node, end: fx.Node) -> Region:
    """The region without the casts before the norm: what else reads the cast does not read the norm."""
    while True:
        nodes = inside(end, root)
        first = [node for node in nodes if root in node.all_input_nodes]
        if len(first) != 1 or name_of(first[0]) not in CASTS:
            return Region(root, end, tuple(nodes))
        (root,) = first


def _centred(node: fx.Node) -> fx.Node | None:
    """Return x of x − mean(x)."""
    if name_of(node) != "aten.sub" or node.kwargs or not all(isinstance(a, fx.Node) for a in node.args[:2]):
        return None
    x, mean = (uncast(argument) for argument in node.args[:2])  # type: ignore[arg-type]
    return x if name_of(mean) == "aten.mean" and _reduced(mean) is x else None


def _spread(node: fx.Node, divides: bool) -> fx.Node | None:
    """Return x of std(x) + ε, or of the (reciprocal) square root of var(x) + ε."""
    deviation = _without_eps(node)
    if divides and name_of(deviation) == "aten.std":
        return _reduced(deviation)
    inner = root_of(node, "aten.sqrt", 0.5) if divides else root_of(node, "aten.rsqrt", -0.5)
    if inner is None:
        return None
    variance = _without_eps(inner)
    if name_of(variance) == "aten.var":
        return _reduced(variance)
    centred = mean_square(inner)
    return None if centred is None else _centred(centred)


def _without_eps(node: fx.Node) -> fx.Node:
    plain = name_of(node) == "aten.add" and not node.kwargs and isinstance(node.args[1], (int, float))
    return uncast(node.args[0]) if plain and isinstance(node.args[0], fx.Node) else node


def _reduced(node: fx.Node) -> fx.Node | None:
    """The operand of a reduction over the last axis that keeps it."""
    call = bind(node, node.args, node.kwargs)
    x = node.args[0]
    if not isinstance(x, fx.Node) or not isinstance(x.meta.get("val"), Tensor) or call.get("keepdim") is not True:
        return None
    return uncast(x) if call.get("dim") in ([-1], [x.meta["val"].ndim - 1]) else None
