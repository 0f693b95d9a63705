"""Movement of data: the very same operation runs on the labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gaugefix.discovery.call import Call, as_value
from gaugefix.discovery.interpreter import Pass
from gaugefix.discovery.labels import FIXED, NOTHING, PERMUTE, ZERO
from gaugefix.discovery.rules.registry import register
from gaugefix.discovery.shifts import Terms
from gaugefix.discovery.value import Value, compress, on_integers, positions, values_in, varies, without_zeros


def move(ctx: Pass, call: Call) -> Any:
    """View, transpose, slice, repeat, …: labels, shifts and parameter entries move like the data."""
    x, rest = call.input, call.positional[1:]
    if any(v.known is None for v in values_in(rest)):
        ctx.freeze([x, *values_in(rest)], f"{call.name} with positions that depend on data")
        return Value(call.shape)
    target = _reshaping(call)
    where, extra = positions(rest), {k: positions(v) for k, v in call.node.kwargs.items()}

    def run(array: Tensor) -> Any:
        return target(array, *where, **extra)

    ctx.shift_of(_without_source(x), len(x.shape))
    ctx.take_over(x)
    results = call.node.meta.get("val")
    if call.name not in _ALIGNED:
        pieces = range(len(results)) if isinstance(results, (list, tuple)) else [None]
        for k, leg in product(pieces, x.legs):
            _separate(ctx, call, x, leg, lambda array, k=k: run(array) if k is None else run(array)[k])  # type: ignore[misc]
    if not isinstance(results, (list, tuple)):
        moved = x.moved(run, call.shape)
        axis = None if x.relation is None else moved_axis(call, x.shape, x.relation.axis)
        if axis is not None and x.relation is not None:
            moved = replace(moved, relation=replace(x.relation, axis=axis))
        if (x.pending or x.stochastic) and moved_axis(call, x.shape, len(x.shape) - 1) == len(call.shape) - 1:
            moved = replace(moved, pending=ctx.carry(x, masked=True), masked=x.masked, stochastic=x.stochastic)
        if x.heads is not None and moved_axis(call, x.shape, len(x.shape) - 3) == len(call.shape) - 3:
            moved = replace(moved, heads=ctx.keep_heads(x))
        return moved
    return [x.moved(lambda array, k=k: run(array)[k], shape) for k, shape in enumerate(call.shapes)]  # type: ignore[misc]


_ALIGNED = frozenset(
    [
        "aten.view",
        "aten.reshape",
        "aten._unsafe_view",
        "aten.unsqueeze",
        "aten.squeeze",
        "aten.flatten",
        "aten.unflatten",
        "aten.view_as",
    ]
)
"""Movements that keep the order of all entries."""

_ALONG = frozenset(
    [
        "aten.slice",
        "aten.select",
        "aten.narrow",
        "aten.index_select",
        "aten.chunk",
        "aten.split",
        "aten.split_with_sizes",
        "aten.unbind",
        "aten.tensor_split",
    ]
)
"""Movements along the axis ``dim``, the same at every position of the other axes."""

_AXES = frozenset(
    [
        "aten.transpose",
        "aten.permute",
        "aten.expand",
        "aten.t",
        "aten.numpy_T",
        "aten.mT",
        "aten.movedim",
        "aten.swapaxes",
        "aten.expand_as",
        "aten.broadcast_to",
    ]
)
"""Movements of whole axes."""


def _separate(ctx: Pass, call: Call, x: Value, leg: Tensor, run: Callable[[Tensor], Tensor]) -> None:
    """See :meth:`Labels.separate`; the common cases need fewer entries, or none."""
    distinct = len(varies(leg)) < 2 or len(np.unique(leg.numpy())) == leg.numel()
    if call.name in _AXES and distinct:
        return
    if call.name in _ALONG and distinct:
        axis = int(call.get("dim", 0)) % len(x.shape)
        if leg.shape[axis] == 1:
            return
        full = leg
    else:
        full = leg.expand(x.shape)
    full = full.contiguous()

    def move_ranks(ranks: list[Tensor]) -> Tensor:
        return on_integers(run, ranks[0])

    ctx.labels.separate([full], on_integers(run, full), move_ranks)


def moved_axis(call: Call, shape: tuple[int, ...], axis: int) -> int | None:
    """Return the axis of the result that is ``axis`` of the input, whole and in order; ``None`` if there is none."""
    size = shape[axis]
    layout = [1] * len(shape)
    layout[axis] = size
    marks = torch.arange(size).reshape(layout).expand(shape)
    try:
        moved = _reshaping(call)(marks, *positions(call.positional[1:]))
    except (RuntimeError, NotImplementedError, TypeError):
        return None
    if not isinstance(moved, Tensor):
        return None
    kept = varies(compress(moved))
    if len(kept) != 1 or moved.shape[kept[0]] != size:
        return None
    straight = bool((compress(moved).reshape(-1) == torch.arange(size)).all())
    return kept[0] if straight else None


def identity(ctx: Pass, call: Call) -> Value:
    """Casts, copies, detach: the value itself. A cast to whole numbers rounds."""
    x = call.input
    meta = call.node.meta.get("val")
    if isinstance(meta, Tensor) and not (meta.is_floating_point() or meta.is_complex()):
        for leg in x.legs:
            ctx.labels.restrict(leg, PERMUTE, f"{call.name} rounds")
        return Value(call.shape, x.legs)
    ctx.shift_of(_without_source(x), len(x.shape))
    ctx.take_over(x)
    return replace(x, known=None, pending=ctx.carry(x, masked=True), heads=ctx.keep_heads(x))


def dropout(ctx: Pass, call: Call) -> Value:
    """A random mask: nothing while off; while on, scales and signs commute with it, sums and constants do not."""
    x = call.input
    probability = call.get("p", 0.5)
    if not probability:
        return identity(ctx, call)
    ctx.dropout_seen = True
    if not ctx.assumptions.dropout:
        return identity(ctx, call)
    if "alpha" in call.name:
        ctx.freeze(x, f"{call.name} adds a constant where it drops")
        return Value(call.shape)
    for leg in x.legs:
        ctx.labels.fibre(leg, [])  # every channel is masked on its own: none mix, none are exchanged
    return Value(call.shape, x.legs)


def concatenate(ctx: Pass, call: Call) -> Value:
    """Cat and stack: legs are matched by the last axis along which they vary; a missing leg is a fixed channel."""
    parts = [as_value(v) for v in call.positional[0]]
    rest = positions(call.positional[1:])
    extra = {k: positions(v) for k, v in call.node.kwargs.items()}
    target: Any = call.node.target
    ordered = [sorted(p.legs, key=lambda leg: varies(leg)[-1:] or [-1], reverse=True) for p in parts]
    legs = []
    for k in range(max(len(part) for part in ordered)):
        arrays = []
        for part, own in zip(parts, ordered, strict=True):
            if k < len(own):
                labels = own[k]
            else:
                zero = part.known is not None and bool((part.known == 0).all())
                labels = torch.tensor(ZERO if zero else FIXED)
            arrays.append(labels.expand(part.shape).contiguous())
        moved = target(arrays, *rest, **extra)
        if _repeats(arrays):
            ctx.labels.separate(arrays, moved, lambda ranks: target(ranks, *rest, **extra))
        legs.append(compress(moved))
    shift: Terms = []
    for place, part in enumerate(parts):  # by place: one value may occur twice
        for coefficient, index in ctx.shift_of(part, len(part.shape)):
            arrays = [
                (index if k == place else torch.tensor(-1)).expand(other.shape).contiguous()
                for k, other in enumerate(parts)
            ]
            shift.append((coefficient, compress(target(arrays, *rest, **extra))))
    return Value(call.shape, tuple(legs), shift=shift)


def _repeats(arrays: list[Tensor]) -> bool:
    """Whether some channel occurs in more than one part."""
    labels = np.concatenate([np.unique(array.numpy()) for array in arrays])
    labels = labels[labels > ZERO]
    return len(np.unique(labels)) < len(labels)


def pad(ctx: Pass, call: Call) -> Value:
    """Zero padding adds channels or positions that are 0 under every action."""
    x = call.input
    mode = call.get("mode", "constant")
    value = call.get("value", 0.0)
    if mode != "constant":
        return move(ctx, call)  # type: ignore[no-any-return]
    fill = ZERO if not value else FIXED
    widths = positions(call["pad"])

    def run(array: Tensor) -> Tensor:
        return torch.nn.functional.pad(array, list(widths), value=fill)

    for leg in x.legs:  # a negative width cuts channels off
        _separate(ctx, call, x, leg, run)
    moved = Value(x.shape, x.legs).moved(run, call.shape)
    return moved if fill == ZERO else replace(moved, legs=tuple(without_zeros(leg) for leg in moved.legs))


def glu(ctx: Pass, call: Call) -> Value:
    """First half times the sigmoid of the second: the first keeps scale and sign, the second only its place."""
    from gaugefix.discovery.rules.product import multiply_values

    x, dim = call.input, call.get("dim", -1)
    a, b = (x.moved(lambda t, k=k: t.chunk(2, dim)[k], call.shape) for k in range(2))  # type: ignore[misc]
    gate = Value(b.shape, tuple(without_zeros(leg) for leg in b.legs))
    for leg in b.legs:
        ctx.labels.restrict(leg, PERMUTE, f"{call.name}: an arbitrary nonlinearity")
        partners = [other for other in a.legs if other.shape == leg.shape]
        for other in partners:
            ctx.labels.tie(leg, other)  # a gate is exchanged together with what it gates
        if not partners:
            ctx.labels.restrict(leg, NOTHING, f"{call.name}: the gate of something fixed")
    fixed = [torch.where(leg > ZERO, FIXED, leg) for leg in gate.legs]
    return multiply_values(ctx, replace(a, shift=[], source=None), Value(b.shape, tuple(fixed)), call.shape)


def _reshaping(call: Call) -> Any:
    """Views of expanded labels may need a copy: reshape does what view does."""
    return torch.ops.aten.reshape.default if call.name in ("aten.view", "aten._unsafe_view") else call.node.target


def _without_source(x: Value) -> Value:
    return replace(x, source=None)


register(
    "aten.view aten.reshape aten._unsafe_view aten.transpose aten.permute aten.unsqueeze aten.squeeze aten.expand "
    "aten.slice aten.select aten.flatten aten.unflatten aten.t aten.numpy_T aten.mT aten.roll aten.repeat aten.tile "
    "aten.repeat_interleave aten.movedim aten.narrow aten.index aten.index_select aten.unfold aten.diagonal aten.flip "
    "aten.expand_as aten.view_as aten.chunk aten.split aten.split_with_sizes aten.unbind aten.pixel_shuffle "
    "aten.pixel_unshuffle aten.channel_shuffle aten.swapaxes aten.tensor_split aten.rot90 aten.broadcast_to",
    move,
    "the same operation on the labels",
)
register(
    "aten.contiguous aten.clone aten.alias aten.detach aten.detach_ aten.to aten._to_copy aten.type_as "
    "aten.lift_fresh_copy aten.positive",
    identity,
    "the value itself",
)
register(
    "aten.dropout aten.native_dropout aten.feature_dropout aten.alpha_dropout aten.feature_alpha_dropout",
    dropout,
    "a random mask",
)
register("aten.cat aten.stack aten.hstack aten.vstack", concatenate, "the same operation on the labels")
register("aten.pad aten.constant_pad_nd", pad, "zeros are compatible with every action")
register("aten.glu", glu, "a product with a sigmoid gate")
