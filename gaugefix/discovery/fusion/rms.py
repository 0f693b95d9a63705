"""RMS norms that are written out: x·(mean(x²) + ε)^(−½) over the last axis, with casts anywhere in between."""

from __future__ import annotations

from torch import Tensor, fx

from gaugefix.discovery.fusion.regions import Region, name_of

CASTS = frozenset(["aten.to", "aten._to_copy", "aten.type_as", "aten.contiguous", "aten.clone", "aten.alias"])


def rms_region(end: fx.Node) -> Region | None:
    """Return the region of an RMS norm that ends at ``end`` (a product with rsqrt, or a quotient with sqrt)."""
    name = name_of(end)
    if name not in ("aten.mul", "aten.div") or end.kwargs or not all(isinstance(a, fx.Node) for a in end.args[:2]):
        return None
    a, b = (uncast(argument) for argument in end.args[:2])  # type: ignore[arg-type]
    for x, factor in ((a, b), (b, a))[: 1 if name == "aten.div" else 2]:
        inner = root_of(
            factor, "aten.sqrt" if name == "aten.div" else "aten.rsqrt", 0.5 if name == "aten.div" else -0.5
        )
        if inner is None:
            continue
        root = mean_square(inner)
        if root is not None and root is x and isinstance(x.meta.get("val"), Tensor):
            return Region(root, end, tuple(inside(end, root)))
    return None


def root_of(node: fx.Node, root: str, exponent: float) -> fx.Node | None:
    """The operand of a (reciprocal) square root."""
    if name_of(node) == root or (name_of(node) == "aten.pow" and node.args[1] == exponent):
        return uncast(node.args[0]) if isinstance(node.args[0], fx.Node) else None
    return None


def mean_square(node: fx.Node) -> fx.Node | None:
    """Return x of mean(x², last axis, keepdim) + ε."""
    if name_of(node) == "aten.add" and isinstance(node.args[0], fx.Node) and isinstance(node.args[1], (int, float)):
        node = uncast(node.args[0])
    if name_of(node) != "aten.mean" or len(node.args) < 3 or node.args[2] is not True:
        return None
    square, axes = node.args[:2]
    if not isinstance(square, fx.Node) or not isinstance(square.meta.get("val"), Tensor):
        return None
    if axes not in ([-1], [square.meta["val"].ndim - 1]):
        return None
    square = uncast(square)
    if name_of(square) == "aten.square" or (name_of(square) == "aten.pow" and square.args[1] == 2):
        return uncast(square.args[0]) if isinstance(square.args[0], fx.Node) else None
    if name_of(square) == "aten.mul" and square.args[0] is square.args[1] and isinstance(square.args[0], fx.Node):
        return uncast(square.args[0])
    return None


def uncast(node: fx.Node) -> fx.Node:
    """The value before casts and copies."""
    while node.op == "call_function" and name_of(node) in CASTS and isinstance(node.args[0], fx.Node):
        value = node.meta.get("val")
        if not isinstance(value, Tensor) or not value.is_floating_point():
            break
        node = node.args[0]
    return node


def inside(end: fx.Node, root: fx.Node) -> list[fx.Node]:
    """The nodes between two values, the later one included."""
    found: list[fx.Node] = []
    stack = [end]
    while stack:
        node = stack.pop()
        if node is root or node in found or node.op != "call_function":
            continue
        found.append(node)
        stack += [node.args[0]] if name_of(node) in CASTS else node.all_input_nodes  # type: ignore[list-item]
    return found[::-1]
