"""Regions of a graph that are a linear map with constant coefficients of one value."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from gaugefix.discovery.fusion.constants import Constants

_MOVING = (
    "view reshape _unsafe_view transpose permute unsqueeze squeeze expand slice select flatten unflatten t mT chunk "
    "split split_with_sizes unbind index index_select narrow movedim swapaxes roll flip repeat repeat_interleave "
    "contiguous clone alias detach to _to_copy type_as neg view_as_complex view_as_real"
)
_ONE = frozenset(f"aten.{name}" for name in _MOVING.split())
"""Linear in their first argument; everything else is constant."""
_SCALING = frozenset(["aten.mul", "aten.div"])
_JOINING = frozenset(["aten.add", "aten.sub", "aten.cat", "aten.stack"])
"""Linear in all their operands together."""
_COPYING = frozenset(f"aten.{name}" for name in ["to", "_to_copy", "type_as", "contiguous", "clone", "alias", "detach"])


@dataclass(frozen=True, eq=False)
class Region:
    """A part of a graph that one value enters and one leaves.

    Args:
        root: the value that enters.
        end: the value that leaves.
        nodes: what is computed in between, in order, ``end`` included.
    """

    root: fx.Node
    end: fx.Node
    nodes: tuple[fx.Node, ...]


def name_of(node: fx.Node) -> str:
    """Packet of the operation, such as ``aten.add``."""
    return ".".join(str(node.target).split(".")[:2])


def linear_regions(constants: Constants) -> Iterator[Region]:
    """Yield the regions whose root and end have the same shape, the later and larger ones first.

    Only those with a sum in them: the others move data or scale it.
    """
    parent: dict[fx.Node, fx.Node | None] = {}
    depth: dict[fx.Node, int] = {}
    order: list[fx.Node] = []
    for node in constants.capture.nodes():
        if node in constants.fixed:
            continue
        above = None
        for source in _linear_in(node, constants):
            above = source if above is None else _meet(above, source, parent, depth)
            if above is None:
                break
        parent[node] = above
        depth[node] = 0 if above is None else depth[above] + 1
        order.append(node)
    place = {node: k for k, node in enumerate(order)}
    for end in reversed(order):
        if name_of(end) in _COPYING:  # left outside: a norm that follows begins in front of its casts
            continue
        root = parent[end]
        while root is not None:
            if _shape(root) == _shape(end) != ():
                region = Region(root, end, _between(root, end, parent, place))
                if any(_sums(node) for node in region.nodes):
                    yield region
            root = parent[root]


def _linear_in(node: fx.Node, constants: Constants) -> list[fx.Node]:
    """The operands in which a node is linear (jointly); none if it is not linear with constant coefficients."""
    if node.op != "call_function" or node in constants.changed:
        return []
    live = [source for source in node.all_input_nodes if source not in constants.fixed]
    name = name_of(node)
    if node.target is operator.getitem or name in _ONE:
        return live if live == [node.args[0]] else []
    if name in _SCALING:
        divides = name == "aten.div" and live != [node.args[0]]
        return live if len(live) == 1 and node.args[0] is not node.args[1] and not divides else []
    if name in _JOINING:
        operands = node.args[0] if isinstance(node.args[0], (list, tuple)) else node.args[:2]
        return live if all(isinstance(operand, fx.Node) and operand in live for operand in operands) else []
    return []


def _sums(node: fx.Node) -> bool:
    return name_of(node) in ("aten.add", "aten.sub", "aten.view_as_real")


def _meet(a: fx.Node, b: fx.Node, parent: dict[fx.Node, fx.Node | None], depth: dict[fx.Node, int]) -> fx.Node | None:
    """The nearest value through which both go."""
    left: fx.Node | None = a
    right: fx.Node | None = b
    while left is not right:
        if left is None or right is None:
            return None
        if depth[left] >= depth[right]:
            left = parent[left]
        else:
            right = parent[right]
    return left


def _between(
    root: fx.Node, end: fx.Node, parent: dict[fx.Node, fx.Node | None], place: dict[fx.Node, int]
) -> tuple[fx.Node, ...]:
    found: set[fx.Node] = set()
    stack = [end]
    while stack:
        node = stack.pop()
        if node is root or node in found or node not in place:
            continue
        found.add(node)
        stack += node.all_input_nodes
    return tuple(sorted(found, key=lambda node: place[node]))


def _shape(node: fx.Node) -> tuple[Any, ...]:
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) else ()
