"""Sums, products, powers and reductions."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from gaugefix.discovery.call import Call, as_value
from gaugefix.discovery.interpreter import Pass
from gaugefix.discovery.labels import DIAGONAL, NOTHING, POSITIVE, Heads
from gaugefix.discovery.rules.product import multiply_by_gain, multiply_values
from gaugefix.discovery.rules.registry import register
from gaugefix.discovery.rules.relations import after_gain, after_shift
from gaugefix.discovery.shifts import Terms
from gaugefix.discovery.value import Value, pad_left, values_in, varies, without_zeros


def add(ctx: Pass, call: Call) -> Value:
    """X + α y: both transform alike; shifts add up. A fixed summand fixes its partner."""
    sign = -1.0 if "sub" in call.name else 1.0
    x, y = as_value(call.positional[0]), as_value(call.positional[1])
    alpha = sign * float(call.get("alpha", 1.0))
    if call.name.startswith("aten.rsub"):
        x, y = y, x
    offset = _offset(ctx, x, y, alpha) or (_offset(ctx, y, x, 1.0) if alpha == 1.0 else None)
    if offset is not None:
        return offset
    n = len(call.shape)
    left, right = ([pad_left(leg, n) for leg in v.legs] for v in (x, y))
    legs: list[Tensor] = []
    if _is_zero(y):
        legs = left
    elif _is_zero(x):
        legs = right
    else:
        for leg in left:
            k = _partner(leg, right)
            if k is None and right and not varies(leg):
                k = next((k for k, other in enumerate(right) if not varies(other)), None)
            if k is None:
                ctx.labels.restrict(leg, NOTHING, "added to something fixed")
                continue
            legs.append(ctx.labels.join(leg, right.pop(k)))
        for leg in right:
            ctx.labels.restrict(leg, NOTHING, "added to something fixed")
    shift = ctx.shift_of(x, n) + [(alpha * c, i) for c, i in ctx.shift_of(y, n)]
    pending, heads = _pending(ctx, call, x, y), _heads(ctx, call, x, y)
    out = Value(call.shape, tuple(legs), shift=shift, pending=pending, heads=heads)
    return after_shift(x, y, out) if alpha == 1.0 else out


def _partner(leg: Tensor, others: list[Tensor]) -> int | None:
    """Which of the other legs lives where this one does: above all along its last axis, that of channels."""
    common = [set(varies(leg)) & set(varies(other)) for other in others]
    shared = [k for k, axes in enumerate(common) if axes]
    return max(shared, key=lambda k: max(common[k])) if shared else None


def _heads(ctx: Pass, call: Call, x: Value, y: Value) -> Heads | None:
    """A mask that is the same for all heads leaves them exchangeable; relative biases and slopes tell them apart."""
    for scores, mask in ((x, y), (y, x)):
        if scores.heads is not None and mask.heads is None and alike_in_heads(mask) and scores.shape == call.shape:
            return ctx.keep_heads(scores)
    return None


def alike_in_heads(mask: Value) -> bool:
    """Whether a value is plain data that cannot vary along the third axis from the end.

    Equal entries are not enough: windows that differ between heads may all hold a short example.
    """
    if mask.legs or mask.source is not None:
        return False
    if len(mask.shape) < 3 or mask.shape[-3] == 1:
        return True
    return mask.known is not None and mask.known.stride(-3) == 0


def _pending(ctx: Pass, call: Call, x: Value, y: Value) -> list[Terms]:
    """A number that is the same along the last axis stays so under a mask that is added."""
    if all(v.shape and v.shape[-1] == call.shape[-1] for v in (x, y) if v.pending):
        return ctx.carry(x, y)
    return []


def _offset(ctx: Pass, parameter: Value, constant: Value, alpha: float) -> Value | None:
    """1 + γ: a parameter with a constant offset transforms as a whole (γ ↦ (γ + 1)·λ − 1)."""
    source, number = parameter.source, constant.known
    if source is None or number is None or number.numel() != 1 or source.entries is not None or source.offset:
        return None
    if not ctx.exclusive(parameter) or not float(number):
        return None
    offset = alpha * float(number)
    ctx.offsets[source.name] = offset
    ctx.pin(parameter)
    return replace(parameter, source=replace(source, offset=offset))


def multiply(ctx: Pass, call: Call) -> Value:
    """x·y: a number scales; data rides along; two labelled channels multiply their scales."""
    x, y = as_value(call.positional[0]), as_value(call.positional[1])
    for a, b in ((x, y), (y, x)):
        if b.known is not None and b.known.numel() == 1 and a.known is None:
            number = float(b.known)
            terms = [(number * c, i) for c, i in ctx.shift_of(a, len(call.shape))]
            legs = tuple(pad_left(leg, len(call.shape)) for leg in a.legs)
            return Value(call.shape, legs, shift=terms, pending=ctx.carry(a), heads=ctx.keep_heads(a))
    gained = multiply_by_gain(ctx, x, y, call.shape)
    return after_gain(x, y, multiply_values(ctx, x, y, call.shape) if gained is None else gained)


def divide(ctx: Pass, call: Call) -> Value:
    """x/y: as a product with 1/y, whose channels carry the inverse scale."""
    x, y = as_value(call.positional[0]), as_value(call.positional[1])
    if call.get("rounding_mode") is not None:
        ctx.freeze([x, y], f"{call.name} rounds")
        return Value(call.shape)
    if y.known is not None and y.known.numel() == 1:
        factor = 1.0 / float(y.known)
        terms = [(factor * c, i) for c, i in ctx.shift_of(x, len(call.shape))]
        legs = tuple(pad_left(leg, len(call.shape)) for leg in x.legs)
        return Value(call.shape, legs, shift=terms, pending=ctx.carry(x), heads=ctx.keep_heads(x))
    return multiply_values(ctx, x, _inverse(ctx, y), call.shape)


def reciprocal(ctx: Pass, call: Call) -> Value:
    """1/x."""
    return _inverse(ctx, call.input)


def _inverse(ctx: Pass, x: Value) -> Value:
    legs = []
    for leg in x.legs:
        ctx.labels.restrict(leg, DIAGONAL, "divided by")
        inverse = ctx.labels.fresh(*leg.shape)
        ctx.labels.dual(inverse, leg)
        legs.append(inverse)
    return Value(x.shape, tuple(without_zeros(leg) for leg in legs), known=None if x.known is None else 1 / x.known)


def power(ctx: Pass, call: Call) -> Value:
    """x^k for a whole number k ≥ 1 multiplies scales; √x halves them."""
    x = call.input
    exponent = call.positional[1] if call.name == "aten.pow" else {"aten.square": 2, "aten.sqrt": 0.5}.get(call.name, 2)
    if isinstance(exponent, Value):
        exponent = None if exponent.known is None or exponent.known.numel() != 1 else float(exponent.known)
    if exponent == 0.5:
        legs = []
        for leg in x.legs:
            ctx.labels.restrict(leg, POSITIVE, "square root")
            root = ctx.labels.fresh(*leg.shape)
            ctx.labels.restrict(root, POSITIVE, "square root")
            ctx.labels.equal(ctx.labels.product(root, root), leg)
            legs.append(root)
        return Value(call.shape, tuple(legs))
    if exponent is None or exponent != int(exponent) or not 1 <= int(exponent) <= 8:
        ctx.freeze(values_in(call.positional), f"{call.name} with exponent {exponent}")
        return Value(call.shape)
    result = x
    for _ in range(int(exponent) - 1):
        result = multiply_values(ctx, result, x, call.shape)
    return Value(call.shape, result.legs)


def negate(ctx: Pass, call: Call) -> Value:
    """−x."""
    x = call.input
    return Value(call.shape, x.legs, shift=[(-c, i) for c, i in ctx.shift_of(x, len(call.shape))])


def reduce(ctx: Pass, call: Call) -> Value:
    """Sum or mean: linear; a leg survives if its channels are not summed over. amax likewise, for positive scales."""
    x = call.input
    if any(isinstance(v, Value) for v in call.positional[1:]):
        ctx.freeze(values_in(call.positional), f"{call.name} of two values")
        return Value(call.shape)
    n = len(x.shape)
    axes = reduced_axes(call, n)
    keep = bool(call.get("keepdim", False))
    linear = call.name in ("aten.sum", "aten.mean", "aten.nansum")
    legs = []
    for leg in x.legs:
        if set(varies(leg)) & set(axes):
            ctx.labels.restrict(leg, NOTHING, f"{call.name} over channels")
            continue
        if not linear:
            ctx.labels.restrict(leg, POSITIVE, f"{call.name}: positively homogeneous")
        legs.append(leg if keep else _squeeze(leg, axes))
    terms = ctx.shifts.constant_along(ctx.shift_of(x, n), axes)
    if call.name == "aten.sum":  # a shift comes out as often as there are summands: fewer in a shorter example
        ctx.shifts.pin(terms)
        terms = []
    result = Value(call.shape, tuple(legs), shift=[(c, i if keep else _squeeze(i, axes)) for c, i in terms])
    return result if len(call.shapes) == 1 else [result, *map(Value, call.shapes[1:])]  # type: ignore[return-value]


def reduced_axes(call: Call, n: int) -> list[int]:
    """The axes that a reduction runs over."""
    axes = call.get("dim")
    if axes is None or axes == []:
        return list(range(n))
    return [axis % n for axis in ([axes] if isinstance(axes, int) else axes)]


def _squeeze(array: Tensor, axes: list[int]) -> Tensor:
    return array.reshape([size for k, size in enumerate(array.shape) if k not in axes])


def _is_zero(v: Value) -> bool:
    return v.known is not None and bool((v.known == 0).all())


def constant(ctx: Pass, call: Call) -> Value:
    """zeros_like, ones_like, …: a constant that depends on the shape alone."""
    return Value(call.shape)


register("aten.add aten.sub aten.rsub", add, "both summands transform alike")
register("aten.mul aten.multiply", multiply, "scales multiply")
register("aten.div aten.divide aten.true_divide", divide, "scales divide")
register("aten.reciprocal", reciprocal, "the inverse scale")
register("aten.pow aten.square aten.sqrt", power, "scales are raised to the power")
register("aten.neg aten.negative", negate, "linear")
register("aten.sum aten.mean aten.amax aten.amin aten.max aten.min", reduce, "linear, or positively homogeneous")
register(
    "aten.zeros_like aten.ones_like aten.full_like aten.new_zeros aten.new_ones aten.empty_like aten.rand_like "
    "aten.randn_like aten.size aten.sym_size",
    constant,
    "depends on the shape alone",
)
