"""Products of values: contractions and elementwise products are one rule, that of an einsum of two operands.

Σ over a letter pairs the labels of both operands as vector and covector; a letter that stays multiplies their scales;
a letter of one operand rides along.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters

from torch import Tensor

from gaugefix.discovery.interpreter import Pass
from gaugefix.discovery.labels import NOTHING
from gaugefix.discovery.value import Value, compress, pad_left, varies


def contract(
    ctx: Pass, x: Value, y: Value, x_letters: str, y_letters: str, out: str, alike: bool = False
) -> tuple[Tensor, ...]:
    """Return the legs of einsum(x, y); ``alike``: data that varies over channels changes places together with them."""
    letters = "".join(dict.fromkeys(out + x_letters + y_letters))
    left = [lift(leg, x_letters, letters) for leg in x.legs]
    right = [lift(leg, y_letters, letters) for leg in y.legs]
    summed = [k for k, letter in enumerate(letters) if letter not in out]
    left, right = _pair(ctx, left, right, summed)
    shared = [k for k, letter in enumerate(letters) if letter in out and letter in x_letters and letter in y_letters]
    extents = _extent(x, x_letters, letters), _extent(y, y_letters, letters)
    legs = _multiply(ctx, left, right, shared, *extents, alike)
    return tuple(compress(leg.reshape(leg.shape[: len(out)])) for leg in legs)


def lift(leg: Tensor, own: str, letters: str) -> Tensor:
    """Lay a leg out over all letters (size 1 where it does not live)."""
    order = sorted(range(len(own)), key=lambda k: letters.index(own[k]))
    leg = leg.permute(order)
    sizes = dict(zip((own[k] for k in order), leg.shape, strict=True))
    return leg.reshape([sizes.get(letter, 1) for letter in letters])


def multiply_values(ctx: Pass, x: Value, y: Value, shape: Sequence[int]) -> Value:
    """Elementwise product with broadcasting."""
    n = len(shape)
    letters = ascii_letters[:n]
    a = Value((1,) * (n - len(x.shape)) + x.shape, tuple(pad_left(leg, n) for leg in x.legs), x.known)
    b = Value((1,) * (n - len(y.shape)) + y.shape, tuple(pad_left(leg, n) for leg in y.legs), y.known)
    return Value(tuple(shape), contract(ctx, a, b, letters, letters, letters))


def multiply_by_gain(ctx: Pass, x: Value, y: Value, shape: Sequence[int]) -> Value | None:
    """The output of a norm times its gain, where gains are conjugated; ``None`` if it is anything else."""
    if ctx.assumptions.gains != "conjugated":
        return None
    for normalized, gain in ((x, y), (y, x)):
        plain = gain.source is not None and gain.source.entries is None and tuple(gain.shape) == tuple(shape[-1:])
        if not (normalized.normalized and plain) or tuple(normalized.shape) != tuple(shape):
            continue
        if len(normalized.legs) == 1 and varies(normalized.legs[0]) == [len(shape) - 1]:
            assert gain.source is not None
            (leg,) = normalized.legs
            out = ctx.labels.fresh(*leg.shape)
            ctx.labels.gain(out, leg, gain.source.name)
            ctx.pin(gain)
            for own in gain.legs:  # it stays, whatever else reads it
                ctx.labels.restrict(own, NOTHING, "the gain of a norm")
            return Value(tuple(shape), (out,))
    return None


def _pair(ctx: Pass, left: list[Tensor], right: list[Tensor], summed: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Pair the legs that live on summed letters; return those that remain."""
    rest = [leg for leg in left if not _lives(leg, summed)], [leg for leg in right if not _lives(leg, summed)]
    a, b = [leg for leg in left if _lives(leg, summed)], [leg for leg in right if _lives(leg, summed)]
    while a:
        leg = a.pop(0)
        partners = [k for k, other in enumerate(b) if set(_lives(leg, summed)) & set(_lives(other, summed))]
        alone = len(partners) == 1 and not any(
            set(_lives(other, summed)) & set(_lives(b[partners[0]], summed)) for other in a
        )
        if not alone or _lives(leg, summed) != _lives(b[partners[0]], summed):
            ctx.labels.restrict(leg, NOTHING, "summed against something without the same channels")
            for k in reversed(partners):
                ctx.labels.restrict(b.pop(k), NOTHING, "summed against something without the same channels")
            continue
        other = b.pop(partners[0])
        ctx.labels.dual(leg, other)
        axes = _lives(leg, summed)
        ctx.labels.fibre(leg, axes, alike=True)
        ctx.labels.fibre(other, axes, alike=True)
    for leg in b:
        ctx.labels.restrict(leg, NOTHING, "summed against something without the same channels")
    return rest


def _multiply(
    ctx: Pass,
    left: list[Tensor],
    right: list[Tensor],
    shared: list[int],
    x_extent: list[int],
    y_extent: list[int],
    alike: bool,
) -> list[Tensor]:
    """Combine the riding legs along the letters that both operands have."""
    legs: list[Tensor] = []
    right = list(right)
    for leg in left:
        partner = next((k for k, other in enumerate(right) if set(varies(leg)) & set(varies(other))), None)
        if partner is None:
            legs.append(_against(ctx, leg, [k for k in shared if k in y_extent], alike))
        else:
            legs.append(ctx.labels.product(leg, right.pop(partner)))
    return legs + [_against(ctx, leg, [k for k in shared if k in x_extent], alike) for leg in right]


def _against(ctx: Pass, leg: Tensor, axes: list[int], alike: bool) -> Tensor:
    """A leg multiplied by plain data: channels with different factors can neither mix nor be exchanged."""
    varying = [k for k in varies(leg) if k in axes]
    if varying:
        ctx.labels.fibre(leg, [k for k in range(leg.ndim) if k not in varying], alike)
    return leg


def _lives(leg: Tensor, summed: list[int]) -> list[int]:
    return [k for k in summed if leg.shape[k] > 1]


def _extent(value: Value, own: str, letters: str) -> list[int]:
    """Letters along which the data of an operand may vary."""
    known = value.known
    axes = []
    for k, size in enumerate(value.shape):
        if size > 1 and (
            known is None or not bool((known.reshape(value.shape) == known.reshape(value.shape).narrow(k, 0, 1)).all())
        ):
            axes.append(letters.index(own[k]))
    return axes
