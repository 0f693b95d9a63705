"""Normalizations: what they ignore, what they couple, and their gains.

A norm is three steps: x ↦ x̂ (couples channels, or positions of one channel), x̂ ↦ γ⊙x̂ (a product of two labelled
channels), + β. With ``norms="scale free"`` the eps is taken as 0, so that a scale of x disappears in x̂.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gaugefix.discovery.call import Call
from gaugefix.discovery.interpreter import Pass
from gaugefix.discovery.labels import DIAGONAL, FIXED, NOTHING, ODD, PERMUTE, POSITIVE, SCALE, ZERO
from gaugefix.discovery.rules.product import multiply_by_gain, multiply_values
from gaugefix.discovery.rules.registry import register
from gaugefix.discovery.shifts import Terms
from gaugefix.discovery.value import Relation, Value, varies, without_zeros


def batch_norm(ctx: Pass, call: Call) -> Value:
    """Each channel is normalized over the batch: its sign survives, its shift vanishes (the running mean follows)."""
    ctx.norms_seen = ctx.batch_norms_seen = True
    x = call.input
    mean, var = call.get("running_mean"), call.get("running_var")
    legs, terms = _channels(ctx, call, x)
    size = x.shape[1]
    buffers = _buffer_names(call) if isinstance(mean, Value) and isinstance(var, Value) else None
    if buffers is not None:
        labels = legs[0].reshape(-1) if legs else torch.full((size,), FIXED)
        for name, power, offset in ((buffers[0], 1, 0.0), (buffers[1], 2, float(call["eps"]))):
            if name in ctx.statistics:  # a norm that is used twice
                ctx.labels.equal(ctx.statistics[name][0], labels)
            ctx.statistics[name] = (labels, power, offset)
    frozen = ctx.assumptions.norms == "frozen" and buffers is not None
    for leg in legs:
        if frozen:
            ctx.labels.restrict(leg, DIAGONAL, "scaled by running statistics")
            ctx.labels.fibre(leg, [])
        elif ctx.assumptions.norms == "live":
            ctx.labels.restrict(leg, ODD, "normalized by a batch norm")
        else:
            ctx.labels.restrict(leg, SCALE, "normalized by a batch norm")
            ctx.labels.consume(leg)
    if buffers is not None:
        ctx.follow(buffers[0], [(c, i.reshape(-1).expand(size)) for c, i in terms])
    legs = [without_zeros(leg) for leg in legs]  # a channel of zeros is −mean/std after a batch norm
    normalized = Value(x.shape, tuple(legs) if ctx.assumptions.norms != "scale free" else ())
    return _affine(ctx, call, normalized, axis=1)


def instance_norm(ctx: Pass, call: Call) -> Value:
    """Each channel of each sample is normalized over its positions."""
    return batch_norm(ctx, call)


def group_norm(ctx: Pass, call: Call) -> Value:
    """Channels of one group are normalized together: only their exchange survives; a common shift vanishes."""
    ctx.norms_seen = True
    x, groups = call.input, int(call["num_groups"])
    legs, terms = _channels(ctx, call, x)
    for leg in legs:
        grouped = leg.reshape(groups, -1)
        if ctx.assumptions.norms == "scale free":
            ctx.labels.equal(grouped, grouped[:, :1])
            ctx.labels.restrict(leg, SCALE, "normalized by a group norm")
            ctx.labels.consume(leg)
        else:
            ctx.labels.restrict(leg, PERMUTE, "normalized by a group norm")
            ctx.labels.fibre(grouped, [1])
    grouped_terms = [(c, i.reshape(-1).expand(x.shape[1]).reshape(groups, -1)) for c, i in terms]
    ctx.shifts.multiple_of_ones(grouped_terms, 1)
    legs = [without_zeros(leg) for leg in legs]
    return _affine(ctx, call, Value(x.shape, () if ctx.assumptions.norms == "scale free" else tuple(legs)), axis=1)


def layer_norm(ctx: Pass, call: Call) -> Value:
    """x̂ = (x − mean)/std over the last axes: exchanges survive, a common shift vanishes, Σ x̂ = 0."""
    if len(tuple(call["normalized_shape"])) > 1:
        ctx.norms_seen = True
        return _frozen_norm(ctx, call, "a layer norm over several axes")
    normalized = written_out_layer_norm(ctx, call)
    axis = len(normalized.shape) - 1
    y = _affine(ctx, call, replace(normalized, relation=None), axis)
    names = [_plain_name(call.get(key)) for key in ("weight", "bias")]
    given = [call.get(key) is not None for key in ("weight", "bias")]
    if all(name is not None or not there for name, there in zip(names, given, strict=True)):
        return Value(y.shape, y.legs, shift=y.shift, relation=Relation(axis, names[0], names[1]))
    return y


def written_out_layer_norm(ctx: Pass, call: Call) -> Value:
    """The same without gain and shift."""
    ctx.norms_seen = True
    x = call.input
    axis = len(x.shape) - 1
    legs = _on_axis(ctx, x, axis, call.name, ctx.assumptions.gains == "conjugated")
    for leg in legs:
        if ctx.assumptions.norms == "scale free":
            ctx.labels.equal(leg, leg.narrow(axis, 0, 1))
            ctx.labels.restrict(leg, SCALE, "normalized by a layer norm")
            ctx.labels.consume(leg)
        elif ctx.assumptions.gains == "conjugated":
            ctx.labels.dual(leg, leg)
            ctx.labels.centre(leg)
            ctx.labels.fibre(leg, [axis], alike=True)
        else:
            ctx.labels.restrict(leg, PERMUTE, "normalized by a layer norm")
            ctx.labels.fibre(leg, [axis], alike=True)
    ctx.shifts.multiple_of_ones(ctx.shift_of(x, len(x.shape)), axis)
    free = ctx.assumptions.norms == "scale free"
    legs = [] if free else [without_zeros(leg) for leg in legs]
    return Value(x.shape, tuple(legs), normalized=True, relation=Relation(axis, None, None))


def rms_norm(ctx: Pass, call: Call) -> Value:
    """x̂ = x/rms(x): commutes with rotations of the last axis."""
    if len(tuple(call["normalized_shape"])) > 1:
        ctx.norms_seen = True
        return _frozen_norm(ctx, call, "an RMS norm over several axes")
    normalized = written_out_rms_norm(ctx, call)
    return _affine(ctx, call, normalized, len(normalized.shape) - 1)


def written_out_rms_norm(ctx: Pass, call: Call) -> Value:
    """The same without a gain."""
    ctx.norms_seen = True
    x = call.input
    axis = len(x.shape) - 1
    legs = _on_axis(ctx, x, axis, call.name, ctx.assumptions.gains == "conjugated")
    if ctx.assumptions.norms == "scale free":
        for leg in legs:
            ctx.labels.equal(leg, leg.narrow(axis, 0, 1))
            ctx.labels.restrict(leg, SCALE, "normalized by an RMS norm")
            ctx.labels.consume(leg)
        return Value(x.shape)
    for leg in legs:
        ctx.labels.dual(leg, leg)
        ctx.labels.fibre(leg, [axis], alike=True)
    return Value(x.shape, tuple(legs), normalized=True)


def weight_norm(ctx: Pass, call: Call) -> Value:
    """W = g·v/‖v‖: the rows transform with g; a positive scale of each row of v is invisible, exactly."""
    v, g = call.input, call.positional[1]
    axis = int(call.get("dim", 0))
    out = []
    gained = any(varies(leg) == [axis] for leg in g.legs)
    for leg in v.legs:
        if varies(leg) == [axis]:
            # Rows may also be exchanged, together with their gains.
            ctx.labels.restrict(leg, POSITIVE if gained else SCALE, "normalized by weight norm")
            ctx.labels.consume(leg)
        else:
            ctx.labels.restrict(leg, NOTHING, "normalized by weight norm")
    for leg in g.legs:
        if varies(leg) == [axis]:
            ctx.labels.restrict(leg, DIAGONAL, "the gain of a weight norm")
            out.append(leg)
            for row in (row for row in v.legs if varies(row) == [axis]):
                ctx.labels.tie(row, leg)
        else:
            ctx.labels.restrict(leg, NOTHING, "weight norm over an unusual axis")
    ctx.pin(v)
    ctx.pin(g)
    return Value(call.shape, tuple(out))


def _affine(ctx: Pass, call: Call, normalized: Value, axis: int) -> Value:
    """γ⊙x̂ + β."""
    layout = [1] * len(normalized.shape)
    layout[axis] = -1
    weight, bias = call.get("weight"), call.get("bias")
    y = normalized
    if isinstance(weight, Value):
        trailing = [1] * (len(layout) - 1 - axis)
        gain = Value((weight.shape[0], *trailing), tuple(leg.reshape(-1, *trailing) for leg in weight.legs))
        ctx.pin(weight)
        gained = multiply_by_gain(ctx, normalized, weight, normalized.shape)
        y = multiply_values(ctx, normalized, gain, normalized.shape) if gained is None else gained
    shift: Terms = []
    if isinstance(bias, Value):
        shift = [(c, i.reshape(-1).expand(normalized.shape[axis]).reshape(layout)) for c, i in ctx.shift_of(bias, 1)]
        if y.legs and bias.legs:
            y = Value(y.shape, (ctx.labels.join(y.legs[0], bias.legs[0].reshape(layout)), *y.legs[1:]))
        else:
            for leg in (*y.legs, *bias.legs):
                ctx.labels.restrict(leg, NOTHING, "added to something fixed")
            y = Value(y.shape)
    return Value(normalized.shape, y.legs, shift=shift)


def _channels(ctx: Pass, call: Call, x: Value) -> tuple[list[Tensor], Terms]:
    """Legs and shift on axis 1; everything else about x is frozen."""
    terms = ctx.shift_of(x, len(x.shape))
    others = [k for k in range(len(x.shape)) if k != 1]
    return _on_axis(ctx, x, 1, call.name, True), ctx.shifts.constant_along(terms, others)


def _on_axis(ctx: Pass, x: Value, axis: int, name: str, together: bool) -> list[Tensor]:
    """Legs of the channels that are normalized; ``together``: the same for all heads and positions."""
    legs = []
    for leg in x.legs:
        if axis in varies(leg) and not together:
            legs.append(leg)
        elif axis in varies(leg) and bool((leg != ZERO).all()):
            # Channels of other positions (a class token beside patches) have to move like those of the first.
            first = leg
            for other in range(leg.ndim):
                first = first if other == axis else first.narrow(other, 0, 1)
            ctx.labels.equal(leg, first)
            legs.append(first)
        elif varies(leg) == [axis]:
            legs.append(leg)
        elif ctx.assumptions.norms == "scale free" and not varies(leg):
            ctx.labels.restrict(leg, SCALE, f"normalized by {name}")
        else:
            ctx.labels.restrict(leg, NOTHING, f"{name} across channels that transform differently")
    return legs


def _frozen_norm(ctx: Pass, call: Call, what: str) -> Value:
    ctx.freeze([v for v in (call.input, call.get("weight"), call.get("bias")) if v is not None], what)
    return Value(call.shape)


def _buffer_names(call: Call) -> tuple[str, str] | None:
    mean, var = call["running_mean"], call["running_var"]
    return None if mean.buffer is None or var.buffer is None else (mean.buffer, var.buffer)


def _plain_name(value: object) -> str | None:
    if isinstance(value, Value) and value.source is not None and value.source.entries is None:
        return value.source.name if not value.source.offset else None
    return None


register("aten.batch_norm aten._native_batch_norm_legit", batch_norm, "each channel is normalized on its own")
register("aten.instance_norm", instance_norm, "each channel is normalized on its own")
register("aten.group_norm", group_norm, "channels of a group are normalized together")
register("aten.layer_norm", layer_norm, "the last axis is centred and normalized")
register("gaugefix.layer_norm", written_out_layer_norm, "the last axis is centred and normalized")
register("aten.rms_norm", rms_norm, "the last axis is normalized")
register("gaugefix.rms_norm", written_out_rms_norm, "the last axis is normalized")
register("aten._weight_norm aten._weight_norm_interface", weight_norm, "rows of unit norm times a gain")
