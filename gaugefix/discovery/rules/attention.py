"""Scaled dot-product attention: two contractions with a softmax over positions in between.

Scores q·k sum over the head axis, so q is a covector where k is a vector: GL(d_k) per head, shared by the query heads
of one key head. The softmax lets no action through. Its rows sum to one, so that the value axis rides along: GL(d_v).
Shifts: a constant added to all keys adds q·c to a whole row of scores, which the softmax does not see; a constant added
to all values comes out as it is (unless dropout removes weights from the rows).
"""

from __future__ import annotations

from torch import Tensor

from gaugefix.discovery.call import Call, as_value
from gaugefix.discovery.interpreter import Pass
from gaugefix.discovery.labels import NOTHING
from gaugefix.discovery.rules.arithmetic import alike_in_heads
from gaugefix.discovery.rules.heads import heads_of, join_heads
from gaugefix.discovery.rules.product import contract
from gaugefix.discovery.rules.registry import register
from gaugefix.discovery.shifts import Terms
from gaugefix.discovery.value import Value


def scaled_dot_product_attention(ctx: Pass, call: Call) -> Value:
    """softmax(q kᵀ/√d + mask) v over (…, heads, positions, channels)."""
    q, k, v = (as_value(call[name]) for name in ("query", "key", "value"))
    mask = call.get("attn_mask")
    if isinstance(mask, Value):
        ctx.freeze(mask, "an attention mask")
    dropped = bool(call.get("dropout_p", 0.0))
    if dropped:
        ctx.dropout_seen = True
    n = len(call.shape)
    if n < 3:
        ctx.freeze([q, k, v], f"{call.name} without a head axis")
        return Value(call.shape)
    copies = q.shape[-3] // k.shape[-3]
    if copies > 1:
        k, v = (_repeated(ctx, x, copies) for x in (k, v))
    batch = "abcdefg"[: n - 2]
    for leg in contract(ctx, q, k, batch + "TD", batch + "SD", batch + "TS"):
        ctx.labels.restrict(leg, NOTHING, "reaches a softmax over positions")
    heads = heads_of(ctx, q, k)
    if heads is not None:
        join_heads(heads, v)
        if isinstance(mask, Value) and not alike_in_heads(mask):
            heads.reason = "a mask that differs between heads"
        if dropped and ctx.assumptions.dropout:
            heads.reason = "dropout of attention weights"
    weights = Value((*call.shape[:-1], k.shape[-2]))
    legs = contract(ctx, weights, v, batch + "TS", batch + "SD", batch + "TD", alike=heads is not None)
    ctx.pin(q)  # at once: queries may be the keys, whose shift is taken over
    ctx.shifts.constant_along(ctx.shift_of(k, n), [n - 2])
    shift: Terms = ctx.shifts.constant_along(ctx.shift_of(v, n), [n - 2])
    if dropped and ctx.assumptions.dropout:
        ctx.shifts.pin(shift)
        shift = []
    return Value(call.shape, legs, shift=shift)


def softmax(ctx: Pass, call: Call) -> Value:
    """Softmax: no action passes; along the last axis, a common number is not seen, and the entries sum to one."""
    x = call.input
    for leg in x.legs:
        ctx.labels.restrict(leg, NOTHING, f"{call.name} couples channels")
    if int(call["dim"]) % len(x.shape) != len(x.shape) - 1:
        return Value(call.shape)
    ctx.carry(x, masked=True)
    return Value(call.shape, stochastic=True, heads=ctx.keep_heads(x))


def _repeated(ctx: Pass, x: Value, copies: int) -> Value:
    """Grouped queries: every key head serves ``copies`` query heads."""
    axis = len(x.shape) - 3

    def repeat(array: Tensor) -> Tensor:
        return array.repeat_interleave(copies, axis)

    shape = (*x.shape[:axis], x.shape[axis] * copies, *x.shape[axis + 1 :])
    moved = x.moved(repeat, shape)
    ctx.take_over(x)
    return moved


register("aten.softmax aten._softmax", softmax, "entries that sum to one; a common number is not seen")
register(
    "aten.scaled_dot_product_attention",
    scaled_dot_product_attention,
    "two contractions with a softmax over positions in between",
)
