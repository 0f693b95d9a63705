"""Find the kernels of layer norms: maps that write into a norm only, and maps that read one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import fx

from gaugefix.discovery.call import bind
from gaugefix.discovery.interpreter import Pass
from gaugefix.discovery.rules.arithmetic import reduced_axes
from gaugefix.discovery.rules.movement import moved_axis
from gaugefix.discovery.rules.registry import find
from gaugefix.discovery.value import Value
from gaugefix.groups import Translations
from gaugefix.symmetry import Exactness, ReaderKernel, Symmetry, WriterKernel

_TRANSPARENT = {"move", "identity", "negate", "add", "dropout", "reduce", "multiply"}


def read_kernels(ctx: Pass, exactness: Exactness) -> list[Symmetry]:
    """Return writer and reader kernels of one pass.

    A weight takes part only if it is trainable, used once in the whole model, and used as it is.
    """
    traces: list[dict[tuple[object, ...], WriterKernel | ReaderKernel]] = []
    for env in ctx.environments:
        blind = _Blind(ctx, env)
        found: dict[tuple[object, ...], WriterKernel | ReaderKernel] = {}
        for node, x, kind in ctx.maps:
            if node in env:
                kernels: list[WriterKernel | ReaderKernel] = []
                kernels += _writer(ctx, env, blind, node, kind, exactness)
                kernels += _reader(ctx, env, node, x, kind, exactness)
                found.update({(kernel.name, *kernel.reads): kernel for kernel in kernels})
        traces.append(found)
    reads = [_parameters_read(env) for env in ctx.environments]
    everywhere = {key: kernel for found in traces for key, kernel in found.items()}
    kept = [
        kernel
        for key, kernel in everywhere.items()
        if all(key in found or kernel.weight not in used for found, used in zip(traces, reads, strict=True))
    ]
    written = {kernel.weight for kernel in kept if isinstance(kernel, WriterKernel)}
    return [
        replace(kernel, overlap=1) if isinstance(kernel, ReaderKernel) and kernel.weight in written else kernel
        for kernel in kept
    ]


def _parameters_read(env: dict[fx.Node, Any]) -> set[str]:
    """Parameters that a trace reads at all."""
    values = [value for node, value in env.items() if node.op == "placeholder" and node.users]
    return {v.source.name for v in values if isinstance(v, Value) and v.source is not None}


def _writer(
    ctx: Pass, env: dict[fx.Node, Any], blind: _Blind, node: fx.Node, kind: str, exactness: Exactness
) -> list[WriterKernel]:
    weight = _weight(env, node, kind)
    y = env[node]
    axis = 1 if kind in ("convolution", "embedding", "matmul") else 0
    channel = 1 if kind == "convolution" else len(y.shape) - 1
    if kind == "convolution":
        axis = 0
    if not _plain(ctx, weight) or blind.axis(node) != channel:
        return []
    assert weight is not None
    assert weight.source is not None
    name = weight.source.name
    size = 1
    for k, d in enumerate(weight.shape):
        size *= d if k != axis else 1
    free = name not in ctx.shifts.tables
    overlap = 1 if kind == "embedding" and free else 0
    return [
        WriterKernel(f"{name}:writer", exactness, weight=name, axis=axis, acting=Translations(size), overlap=overlap)
    ]


def _reader(
    ctx: Pass, env: dict[fx.Node, Any], node: fx.Node, x: Value, kind: str, exactness: Exactness
) -> list[ReaderKernel]:
    relation = x.relation
    channel = 1 if kind == "convolution" else len(x.shape) - 1
    if kind == "embedding" or relation is None or relation.axis != channel:
        return []
    weight = _weight(env, node, kind)
    if not _plain(ctx, weight):
        return []
    assert weight is not None
    assert weight.source is not None
    call = bind(node, node.args, node.kwargs)
    bias = _value(env, node.args[0] if call.name == "aten.addmm" else call.get("bias"))
    usable = bias is not None and ctx.exclusive(bias) and bias.source is not None and bias.source.entries is None
    if relation.shift is not None and not usable:
        return []  # the constant Σβ/γ would have nowhere to go
    out_axis = 1 if kind == "matmul" else 0
    return [
        ReaderKernel(
            f"{weight.source.name}:reader",
            exactness,
            weight=weight.source.name,
            axis=1 - out_axis,
            out_axis=out_axis,
            bias=bias.source.name
            if usable and bias is not None and bias.source is not None and relation.shift
            else None,
            gain=relation.gain,
            shift=relation.shift,
            acting=Translations(weight.shape[out_axis]),
        )
    ]


class _Blind:
    """The axis along which nobody sees a constant added to all channels, node by node, from the outputs back."""

    def __init__(self, ctx: Pass, env: dict[fx.Node, Any]) -> None:
        self.ctx, self.env = ctx, env
        self.known: dict[fx.Node, int | None] = {}

    def axis(self, start: fx.Node) -> int | None:
        """Axis of the value at ``start`` along which a constant is invisible; ``None`` if it is seen."""
        stack = [start]
        while stack:
            node = stack[-1]
            if node in self.known:
                stack.pop()
                continue
            users = [user for user in node.users if user.op == "output" or user in self.env or user in self.ctx.fused]
            waiting = [user for user in users if self._asks(user) and user not in self.known]
            if waiting:
                stack += waiting
                continue
            seen = {self._through(node, user) for user in users}
            self.known[node] = seen.pop() if len(seen) == 1 else None
            stack.pop()
        return self.known[start]

    def _asks(self, user: fx.Node) -> bool:
        """Whether the answer depends on what lies behind ``user``."""
        return (
            user.op == "call_function"
            and user not in self.ctx.fused
            and self._kind(user)
            in {
                *_TRANSPARENT,
                "add",
                "dropout",
                "reduce",
                "multiply",
            }
        )

    def _kind(self, node: fx.Node) -> str:
        rule = find(bind(node, node.args, node.kwargs).name)
        return getattr(rule, "__name__", "")

    def _through(self, node: fx.Node, user: fx.Node) -> int | None:
        x, y = self.env[node], self.env.get(user)
        if user.op != "call_function" or not isinstance(x, Value) or {node, user} & self.ctx.aliased:
            return None
        if user in self.ctx.fused:  # an RMS norm and positions that turn see a constant
            return len(x.shape) - 1 if self.ctx.centring.get(user) is node else None
        args = _resolve(user.args, self.env)
        call = bind(user, args, _resolve(user.kwargs, self.env))
        kind = self._kind(user)
        if kind == "layer_norm" and user.args[0] is node and len(tuple(call["normalized_shape"])) == 1:
            return len(x.shape) - 1
        if not isinstance(y, Value) or self.known.get(user) is None:
            return None
        behind = self.known[user]
        assert behind is not None
        if kind in ("identity", "negate"):
            return behind
        if kind == "dropout":
            return None if self.ctx.assumptions.dropout and call.get("p", 0.5) else behind
        if kind == "add":
            axis = behind - (len(y.shape) - len(x.shape))
            return axis if axis >= 0 and x.shape[axis] == y.shape[behind] else None
        if kind == "multiply":
            other = args[1] if user.args[0] is node else args[0]
            return (
                behind
                if not isinstance(other, Value) or (other.known is not None and other.known.numel() == 1)
                else None
            )
        if kind == "move":
            return next((k for k in range(len(x.shape)) if moved_axis(call, x.shape, k) == behind), None)
        if kind == "reduce" and call.name in ("aten.mean", "aten.sum"):
            axes = reduced_axes(call, len(x.shape))
            kept = [k for k in range(len(x.shape)) if k not in axes] if not call.get("keepdim", False) else None
            axis = behind if kept is None else kept[behind]
            return axis if axis not in axes else None
        return None


def _resolve(item: Any, env: dict[fx.Node, Any]) -> Any:
    return fx.node.map_arg(item, lambda node: env.get(node))


def _value(env: dict[fx.Node, Any], item: object) -> Value | None:
    found = env.get(item) if isinstance(item, fx.Node) else item
    return found if isinstance(found, Value) else None


def _weight(env: dict[fx.Node, Any], node: fx.Node, kind: str) -> Value | None:
    if kind == "embedding":
        return _value(env, node.args[0])
    return _value(env, node.args[-1] if kind == "matmul" else node.args[1])


def _plain(ctx: Pass, weight: Value | None) -> bool:
    return weight is not None and ctx.exclusive(weight) and weight.source is not None and weight.source.entries is None
