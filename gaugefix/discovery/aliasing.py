"""Which values of a graph may share memory."""

from __future__ import annotations

from torch import fx


def is_mutable(node: fx.Node) -> bool:
    """Whether the operation changes the entries of an argument in place."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable) and schema.name != "aten::detach_"


def aliases(node: fx.Node) -> set[fx.Node]:
    """All values that may share memory with the input that ``node`` changes in place, itself included."""
    found = {node}
    stack = [node]
    while stack:
        current = stack.pop()
        near = [user for user in current.users if may_alias(user)]
        if may_alias(current):
            near += current.all_input_nodes
        for other in near:
            if other not in found:
                found.add(other)
                stack.append(other)
    return found


def may_alias(node: fx.Node) -> bool:
    """Whether the result may be (a view of) an argument; a dropout that is off returns its argument."""
    if node.op != "call_function":
        return False
    schema = getattr(node.target, "_schema", None)
    if schema is None or "dropout" in schema.name:
        return True
    return any(argument.alias_info is not None for argument in schema.arguments)
