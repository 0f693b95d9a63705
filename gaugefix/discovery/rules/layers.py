"""Pooling, interpolation, embeddings and PReLU."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gaugefix.discovery.call import Call, as_value
from gaugefix.discovery.interpreter import Pass
from gaugefix.discovery.labels import NOTHING, POSITIVE
from gaugefix.discovery.rules.registry import register
from gaugefix.discovery.shifts import Terms
from gaugefix.discovery.value import Value, varies


def pool(ctx: Pass, call: Call) -> Value | list[Value]:
    """Averages of positions are linear, maxima positively homogeneous; both keep constants (but not at a padding)."""
    x = call.input
    linear = "avg" in call.name or "upsample" in call.name or "interpolate" in call.name
    spatial = _spatial(x, call)
    legs = []
    for leg in x.legs:
        if set(varies(leg)) & set(spatial):
            ctx.labels.restrict(leg, NOTHING, f"{call.name} across positions that transform differently")
            continue
        if not linear:
            ctx.labels.restrict(leg, POSITIVE, f"{call.name}: positively homogeneous")
        legs.append(leg)
    terms = ctx.shift_of(x, len(x.shape))
    padded = "avg" in call.name and "adaptive" not in call.name and _any(call.get("padding", 0))
    if padded or call.get("divisor_override") is not None:  # then the weights of a window do not sum to one
        ctx.shifts.pin(terms)
        terms = []
    shift: Terms = ctx.shifts.constant_along(terms, spatial)
    result = Value(call.shape, tuple(legs), shift=shift)
    return [result, *map(Value, call.shapes[1:])] if len(call.shapes) > 1 else result


def _spatial(x: Value, call: Call) -> list[int]:
    n = len(x.shape)
    dims = next((d for d in (1, 2, 3) if f"{d}d" in call.name), n - 2)
    return list(range(n - dims, n))


def _any(padding: object) -> bool:
    return any(padding) if isinstance(padding, (list, tuple)) else bool(padding)


def embedding(ctx: Pass, call: Call) -> Value:
    """Rows of a table: the columns are channels; all rows may shift together."""
    table, ids = as_value(call.positional[0]), as_value(call.positional[1])
    n = len(call.shape)
    rows = None if ids.known is None else ids.known.cpu()
    # Rows that this example does not read are read by longer ones: they have to follow the others.
    if rows is not None and len(torch.unique(rows)) == table.shape[0]:  # known positions: entries of the table, moved

        def pick(array: Tensor) -> Tensor:
            return array[rows]

        moved = replace(table, shift=[]).moved(pick, call.shape)
        ctx.take_over(table)
        return moved
    legs = []
    for leg in table.legs:
        if varies(leg) == [1]:
            legs.append(leg.reshape([1] * (n - 1) + [-1]))
        else:
            ctx.labels.restrict(leg, NOTHING, "rows are chosen by the data")
    shift: Terms = []
    padded = int(call.get("padding_idx", -1)) >= 0
    if table.source is not None and ctx.exclusive(table) and table.source.entries is None and not padded:
        ctx.take_over(table)
        fresh = ctx.rows_shift(table.source.name, table.shape[1])
        shift = [(1.0, fresh.reshape([1] * (n - 1) + [-1]))]
        ctx.maps.append((call.node, table, "embedding"))
    return Value(call.shape, tuple(legs), shift=shift)


def prelu(ctx: Pass, call: Call) -> Value:
    """max(0, x) + a·min(0, x): positively homogeneous; the slope of a channel stays with it."""
    x, slope = call.input, as_value(call.positional[1])
    for leg in x.legs:
        ctx.labels.restrict(leg, POSITIVE, "prelu: positively homogeneous")
        if slope.shape and slope.shape[0] > 1:
            ctx.labels.fibre(leg, [])
    for leg in slope.legs:
        ctx.labels.restrict(leg, NOTHING, "the slope of a PReLU is part of the function")
    return Value(call.shape, x.legs)


register(
    "aten.avg_pool1d aten.avg_pool2d aten.avg_pool3d aten.adaptive_avg_pool1d aten.adaptive_avg_pool2d "
    "aten.adaptive_avg_pool3d aten.max_pool1d aten.max_pool2d aten.max_pool3d aten.max_pool2d_with_indices "
    "aten.max_pool1d_with_indices aten.max_pool3d_with_indices aten.adaptive_max_pool1d aten.adaptive_max_pool2d "
    "aten.adaptive_max_pool3d aten.upsample_nearest1d aten.upsample_nearest2d aten.upsample_nearest3d "
    "aten.upsample_bilinear2d aten.upsample_linear1d aten.upsample_bicubic2d aten.upsample_trilinear3d",
    pool,
    "acts on positions of one channel",
)
register("aten.embedding", embedding, "rows of a table")
register("aten.prelu aten._prelu_kernel", prelu, "positively homogeneous")
