"""Linear maps with a weight: linear layers, matrix products, convolutions, bilinear maps.

Labels: y = W x sums over the input axis, so W is a covector there where x is a vector. Shifts: the bias absorbs
W·shift and lets y shift by anything; without a bias of its own the map passes W·shift on.
"""

from __future__ import annotations

from string import ascii_letters
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gaugefix.discovery.call import Call, as_value
from gaugefix.discovery.interpreter import Pass
from gaugefix.discovery.labels import NOTHING
from gaugefix.discovery.rules.arithmetic import add
from gaugefix.discovery.rules.heads import heads_of, join_heads
from gaugefix.discovery.rules.product import contract
from gaugefix.discovery.rules.registry import register
from gaugefix.discovery.shifts import Terms
from gaugefix.discovery.value import Value, pad_left, varies
from gaugefix.symmetry import ChannelMap

if TYPE_CHECKING:
    from gaugefix.discovery.value import Source


def pass_shift(
    ctx: Pass,
    call: Call,
    x: Value,
    weight: Value,
    bias: Value | None,
    axis: int,
    transposed: bool,
    groups: int = 1,
    local: bool = True,
) -> Terms:
    """Return the shift of y = W x + b; ``axis`` is the channel axis, the same in x and y.

    Args:
        ctx: the pass.
        call: the operation, for the shape of its result.
        x: what the map reads.
        weight: its weight.
        bias: its bias.
        axis: the channel axis.
        transposed: whether the weight has its input axis first.
        groups: of a convolution.
        local: whether every output position sees all taps of the weight (no zero padding).
    """
    n = len(x.shape)
    terms = ctx.shift_of(x, n)
    channels = [k for k in range(n) if k != axis % n]
    size_out = call.shape[axis]
    channel_map = _channel_map(weight.source, transposed, groups)
    if terms and (channel_map is None or not local):
        ctx.shifts.pin(terms)
        terms = []
    terms = ctx.shifts.constant_along(terms, channels)
    flat = [(c, i.reshape(-1).expand(x.shape[axis])) for c, i in terms]
    layout = [1] * len(call.shape)
    layout[axis] = size_out
    if bias is None and channel_map is not None and _may_stand_in(ctx, x, weight, axis):
        assert x.relation is not None
        ctx.take_over(weight)
        fresh = ctx.absorb_along(channel_map.weight, size_out, channel_map, flat, x.relation)
        return [(1.0, fresh.reshape(layout))]
    if weight.source is not None:  # reading a weight is a multiplicative use
        ctx.pin(weight)
    if bias is not None and ctx.exclusive(bias) and bias.source is not None and bias.source.entries is None:
        ctx.take_over(bias)
        return [(1.0, ctx.absorb(bias.source.name, size_out, channel_map, flat).reshape(layout))]
    out: Terms = []
    if flat and channel_map is not None:
        out.append((1.0, ctx.derive(size_out, channel_map, flat).reshape(layout)))
    if bias is not None:
        out += [(c, i.reshape(-1).expand(size_out).reshape(layout)) for c, i in ctx.shift_of(bias, 1)]
    return out


def _may_stand_in(ctx: Pass, x: Value, weight: Value, axis: int) -> bool:
    """Whether a weight without a bias can use the constant that a layer norm leaves in its input."""
    plain = weight.source is not None and weight.source.entries is None and len(weight.shape) == 2
    constant = x.relation is not None and x.relation.axis == axis and x.relation.shift is not None
    return ctx.assumptions.gains == "conjugated" and plain and constant and ctx.exclusive(weight)


def _channel_map(source: Source | None, transposed: bool, groups: int) -> ChannelMap | None:
    if source is None or source.offset:
        return None
    entries = None if source.entries is None else np.asarray(source.entries.numpy(), dtype=np.int64)
    return ChannelMap(source.name, entries, transposed, groups)


def linear(ctx: Pass, call: Call) -> Value:
    """Y = x Wᵀ + b."""
    x, weight = call.input, as_value(call.positional[1])
    bias = _optional(call.get("bias"))
    rest = ascii_letters[: len(x.shape) - 1]
    legs = contract(ctx, x, weight, rest + "Y", "ZY", rest + "Z")
    shift = pass_shift(ctx, call, x, weight, bias, axis=-1 % len(call.shape), transposed=False)
    ctx.maps.append((call.node, x, "linear"))
    return _with_bias(ctx, Value(call.shape, legs, shift=shift), bias, len(call.shape) - 1)


def matmul(ctx: Pass, call: Call) -> Value:
    """X @ y with broadcasting batch axes; a matrix on the right is the weight of a linear map."""
    x, y = as_value(call.positional[-2]), as_value(call.positional[-1])
    if len(x.shape) < 2 or len(y.shape) < 2:
        ctx.freeze([x, y], f"{call.name} with a vector")
        return Value(call.shape)
    n = max(len(x.shape), len(y.shape)) - 2
    batch = ascii_letters[:n]
    own = batch[n - (len(x.shape) - 2) :], batch[n - (len(y.shape) - 2) :]
    legs = contract(ctx, x, y, own[0] + "XK", own[1] + "KY", batch + "XY", alike=x.heads is not None)
    shift: Terms = []
    if len(y.shape) == 2 and y.source is not None:
        shift = pass_shift(ctx, call, x, y, None, axis=len(call.shape) - 1, transposed=True)
        ctx.maps.append((call.node, x, "matmul"))
        return Value(call.shape, legs, shift=shift)
    if y.source is not None:
        return Value(call.shape, legs)
    ctx.pin(x)  # at once: it may be y, whose shift is taken over
    terms = ctx.shift_of(y, len(y.shape))
    if x.heads is not None:
        ctx.keep_heads(x)
        join_heads(x.heads, y)
    if x.stochastic:  # rows that sum to one: a constant on all that they average comes out as it is
        terms = ctx.shifts.constant_along(terms, [len(y.shape) - 2])
        return Value(call.shape, legs, shift=[(c, pad_left(i, len(call.shape))) for c, i in terms])
    pending = ctx.shifts.constant_along(terms, [len(y.shape) - 1])
    return Value(call.shape, legs, pending=[pending] if pending else [], heads=heads_of(ctx, x, y))


def addmm(ctx: Pass, call: Call) -> Value:
    """B + x @ W: a linear map whose weight is stored input first (Conv1D of GPT-2)."""
    bias, x, weight = (as_value(v) for v in call.positional[:3])
    if float(call.get("beta", 1)) != 1.0 or float(call.get("alpha", 1)) != 1.0:
        ctx.freeze([bias, x, weight], f"{call.name} with factors")
        return Value(call.shape)
    batch = ascii_letters[: len(x.shape) - 2]
    legs = contract(ctx, x, weight, batch + "XK", batch + "KY", batch + "XY")
    if len(bias.shape) == 1 and len(weight.shape) == 2:
        shift = pass_shift(ctx, call, x, weight, bias, axis=len(call.shape) - 1, transposed=True)
        ctx.maps.append((call.node, x, "matmul"))
        return _with_bias(ctx, Value(call.shape, legs, shift=shift), bias, len(call.shape) - 1)
    ctx.pin(x)
    ctx.pin(weight)
    return _sum(ctx, call, Value(call.shape, legs), bias)


def convolution(ctx: Pass, call: Call) -> Value:
    """y_o = Σ W_oi * x_i: a contraction over channels; positions and taps carry no action."""
    x, weight = call.input, as_value(call.positional[1])
    bias, groups = _optional(call.get("bias")), int(call.get("groups", 1))
    transposed = "transpose" in call.name
    n = len(x.shape)
    channel = n - (len(weight.shape) - 1)  # unbatched inputs have no batch axis
    legs = _on_channels(ctx, x.legs, channel, call.name)
    taps = [leg for leg in weight.legs if any(k >= 2 for k in varies(leg))]
    if taps or len(legs) > 1:
        ctx.freeze([x, weight], f"{call.name} with an unusual weight")
        return _with_bias(ctx, Value(call.shape), bias, channel)
    read, written = _kernel_legs(ctx, weight, groups, transposed)
    if legs:
        labels = legs[0].reshape(-1).reshape(groups, 1, -1)
        if read is None:
            ctx.labels.restrict(labels, NOTHING, "summed against something without the same channels")
        else:
            ctx.labels.dual(labels, read)
            ctx.labels.fibre(labels, [2])
            ctx.labels.fibre(read[:, :1], [2])
    elif read is not None:
        ctx.labels.restrict(read, NOTHING, "reads something fixed")
    local = not _padded(call) and not transposed
    shift = pass_shift(ctx, call, x, weight, bias, channel, transposed, groups, local)
    if set(weight.shape[2:]) <= {1} and groups == 1 and local:
        ctx.maps.append((call.node, x, "convolution"))
    if written is None:
        return _with_bias(ctx, Value(call.shape, shift=shift), bias, channel)
    if groups > 1:
        ctx.labels.fibre(written.reshape(groups, -1), [1])
    layout = [1] * len(call.shape)
    layout[channel] = -1
    return _with_bias(ctx, Value(call.shape, (written.reshape(layout),), shift=shift), bias, channel)


def _kernel_legs(ctx: Pass, weight: Value, groups: int, transposed: bool) -> tuple[Tensor | None, Tensor | None]:
    """Input labels (groups, out per group, in per group) and output labels (out,) of a kernel."""
    rows = weight.shape[0] // groups
    # The leg of axis 0 comes first: a depthwise kernel has its input leg along axis 0 too.
    first = next((leg for leg in weight.legs if varies(leg) == [0] and leg is weight.legs[0]), None)
    second = next((leg for leg in weight.legs if leg is not first), None)
    if not transposed:
        read = None
        if second is not None:
            read = _per_group(second, weight, groups)
        return read, None if first is None else first.reshape(-1)
    read = None if first is None else first.reshape(groups, 1, rows)
    written = None
    if second is not None:
        full = _per_group(second, weight, groups)
        ctx.labels.equal(full, full[:, :1])
        written = full[:, 0].expand(groups, weight.shape[1]).reshape(-1)
    return read, written


def _per_group(leg: Tensor, weight: Value, groups: int) -> Tensor:
    """Lay a leg out as (groups, rows of a group or 1, columns)."""
    if leg.shape[0] == 1:
        return leg.reshape(1, 1, -1).expand(groups, 1, weight.shape[1])
    full = leg.reshape(groups, -1, leg.shape[1]).expand(groups, weight.shape[0] // groups, weight.shape[1])
    return full[:, :1] if bool((full == full[:, :1]).all()) else full


def _padded(call: Call) -> bool:
    padding = call.get("padding", 0)
    if isinstance(padding, str):
        return padding != "valid"
    return any(padding) if isinstance(padding, (list, tuple)) else bool(padding)


def _on_channels(ctx: Pass, legs: tuple[Tensor, ...], channel: int, name: str) -> list[Tensor]:
    kept = []
    for leg in legs:
        if varies(leg) == [channel]:
            kept.append(leg)
        else:
            ctx.labels.restrict(leg, NOTHING, f"{name} across positions that transform differently")
    return kept


def bilinear(ctx: Pass, call: Call) -> Value:
    """y_o = Σ_ij x_i W_oij z_j + b_o."""
    x, z, weight = (as_value(v) for v in call.positional[:3])
    bias = _optional(call.get("bias"))
    rest = ascii_letters[: len(x.shape) - 1]
    half = Value(
        (*x.shape[:-1], weight.shape[0], weight.shape[2]), contract(ctx, x, weight, rest + "I", "OIJ", rest + "OJ")
    )
    legs = contract(ctx, half, z, rest + "OJ", rest + "J", rest + "O")
    shift = [] if bias is None else [(c, _last(i, len(call.shape))) for c, i in ctx.shift_of(bias, 1)]
    return _with_bias(ctx, Value(call.shape, legs, shift=shift), bias, len(call.shape) - 1)


def einsum(ctx: Pass, call: Call) -> Value:
    """Products and sums of two operands, spelled out."""
    operands = [as_value(v) for v in call.positional[1]]
    equation = str(call.positional[0]).replace(" ", "")
    if len(operands) > 2 or "." in equation or "->" not in equation:
        ctx.freeze(operands, f"einsum '{equation}'")
        return Value(call.shape)
    inputs, out = equation.split("->")
    letters = inputs.split(",")
    if any(len(set(word)) < len(word) for word in letters):
        ctx.freeze(operands, f"einsum '{equation}' with a diagonal")
        return Value(call.shape)
    if len(operands) == 1:
        operands.append(Value((), known=torch.ones(())))
        letters.append("")
    x, y = operands
    ctx.pin(x)  # at once: it may be y, whose shift is taken over
    legs = contract(ctx, x, y, letters[0], letters[1], out)
    averages = x.stochastic and len(letters[1]) > 1 and letters[0][-1] in letters[1] and letters[0][-1] not in out
    if averages and all(letter in out for letter in letters[0][:-1]):  # none of the rows that sum to one are summed
        rows = letters[1].index(letters[0][-1])
        terms = ctx.shifts.constant_along(ctx.shift_of(y, len(y.shape)), [rows])
        order = [letters[1].index(letter) for letter in out if letter in letters[1]]
        if sorted([*order, rows]) == list(range(len(letters[1]))):
            place = [k for k, letter in enumerate(out) if letter in letters[1]]
            return Value(call.shape, legs, shift=[(c, _laid_out(i, order, place, len(out))) for c, i in terms])
        ctx.shifts.pin(terms)
        return Value(call.shape, legs)
    if y.shift and out and out[-1] in letters[1] and out[-1] not in letters[0]:
        keys = letters[1].index(out[-1])
        return Value(call.shape, legs, pending=[ctx.shifts.constant_along(ctx.shift_of(y, len(y.shape)), [keys])])
    return Value(call.shape, legs)


def _laid_out(index: Tensor, order: list[int], place: list[int], n: int) -> Tensor:
    """Axes ``order`` of an index (all others have size 1) at the places ``place`` of n axes."""
    shape = [1] * n
    for k, axis in zip(place, order, strict=True):
        shape[k] = index.shape[axis]
    rest = [axis for axis in range(index.ndim) if axis not in order]
    return index.permute([*order, *rest]).reshape(shape)


def _optional(item: object) -> Value | None:
    return item if isinstance(item, Value) else None


def _last(index: Tensor, n: int) -> Tensor:
    return index.reshape([1] * (n - 1) + [-1])


def _with_bias(ctx: Pass, y: Value, bias: Value | None, axis: int) -> Value:
    """Tie the labels of the bias to those of the output's channel axis."""
    if bias is None:
        return y
    layout = [1] * len(y.shape)
    layout[axis] = -1
    if not y.legs or not bias.legs:
        for leg in (*y.legs, *bias.legs):
            ctx.labels.restrict(leg, NOTHING, "added to something fixed")
        return Value(y.shape, shift=y.shift)
    on_axis = [leg for leg in y.legs if varies(leg) == [axis]]
    for leg in y.legs:
        if leg is not (on_axis[0] if on_axis else None):
            ctx.labels.restrict(leg, NOTHING, "added to a bias")
    if not on_axis:
        ctx.labels.restrict(bias.legs[0], NOTHING, "added to something fixed")
        return Value(y.shape, shift=y.shift)
    return Value(y.shape, (ctx.labels.join(on_axis[0], bias.legs[0].reshape(layout)),), shift=y.shift)


def _sum(ctx: Pass, call: Call, product: Value, summand: Value) -> Value:
    arguments = Call(call.node, "aten.add", {}, [product, summand], call.shapes)
    return add(ctx, arguments)


register("aten.linear", linear, "sums over the input axis")
register("aten.matmul aten.mm aten.bmm", matmul, "sums over the inner axis")
register("aten.addmm aten.baddbmm", addmm, "a bias plus a sum over the inner axis")
register(
    "aten.conv1d aten.conv2d aten.conv3d aten.conv_transpose1d aten.conv_transpose2d aten.conv_transpose3d",
    convolution,
    "sums over input channels; positions carry no action",
)
register("aten.bilinear", bilinear, "two sums")
register("aten.einsum", einsum, "sums over letters")
