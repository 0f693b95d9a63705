"""Read rotations of residual streams off a pass with conjugated gains."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gaugefix.discovery.components import Components, components
from gaugefix.discovery.interpreter import Pass
from gaugefix.discovery.labels import MIX, ZERO
from gaugefix.discovery.read_off import Slot, slots_of
from gaugefix.errors import SymmetryError
from gaugefix.groups import Orthogonal
from gaugefix.symmetry import Exactness, Gain, Leg, ResidualRotation

Ints = NDArray[np.int64]

_NONE, _BEFORE = -2, -1
"""Where a component lies: nowhere near a norm, or in front of one; 0, 1, … number the gains behind which it lies."""


@dataclass(frozen=True, eq=False)
class Sides:
    """Where the channels lie: in front of the norms, or behind which gain.

    Args:
        plain: components with the gains as walls.
        side: of every such component.
        place: which entry of the gain it is.
        turn: +1 where it moves like the output of the norm, −1 where like its dual.
        wrong: components that would lie on two sides.
    """

    plain: Components
    side: Ints
    place: Ints
    turn: Ints
    wrong: NDArray[np.bool_]


def read_rotations(ctx: Pass, order: Iterable[str], exactness: Exactness) -> list[ResidualRotation]:
    """Return the rotations that norms let act, one for each stream.

    A channel behind a gain moves by γRγ⁻¹, so it may not also be one in front of a norm, nor behind another gain: tied
    embeddings, and streams that are normalized in place, have no rotation.
    """
    gains = ctx.labels.gains
    sides = _sides(ctx)
    whole = components(ctx.labels, [(out, normalized, 1) for out, normalized, _ in gains])
    broken = np.zeros(whole.count, bool)
    broken[whole.of[sides.wrong[sides.plain.of]]] = True
    slots = [slot for slot in slots_of(ctx, order) if not slot.buffer]
    touched = np.zeros(whole.count, bool)
    for slot in slots:
        touched[whole.of[np.unique(slot.labels)]] = True
    free = touched & whole.selfdual & ((whole.allowed & MIX) > 0) & ~broken
    streams: dict[tuple[int, bool], list[int]] = {}
    for c in np.flatnonzero(free):
        streams.setdefault((int(whole.key[c]), bool(whole.centred[c])), []).append(int(c))
    found = []
    for (_, centred), members in streams.items():
        group = Orthogonal(len(members), fixes_ones=centred) if len(members) > 1 else None
        if group is None or not group.dimension:
            continue
        coordinate = np.full(whole.count, -1, np.int64)
        coordinate[members] = np.arange(len(members))
        try:
            legs = tuple(item for slot in slots for item in _legs(slot, coordinate, whole, sides, ctx))
            name = f"{legs[0][0].parameter.rsplit('.', 1)[0]}:rotation"
            found.append(ResidualRotation(name, exactness, acting=group, legs=legs))
        except SymmetryError:
            continue  # coordinates do not occur equally often in some leg, have several gains, or a constant is added
    return found


def _sides(ctx: Pass) -> Sides:
    labels = ctx.labels
    plain = components(labels)
    side = np.full(plain.count, _NONE, np.int64)
    place = np.full(plain.count, -1, np.int64)
    turn = np.ones(plain.count, np.int64)
    wrong = np.zeros(plain.count, bool)
    names = list(dict.fromkeys(name for _, _, name in labels.gains))

    def put(where: Ints, which: int, positions: Ints, signs: Ints) -> None:
        known = side[where] != _NONE
        same = (side[where] == which) & (place[where] == positions) & ((turn[where] == signs) | (which == _BEFORE))
        wrong[where[known & ~same]] = True
        side[where], place[where], turn[where] = which, positions, signs
        wrong[where[(place[where] != positions) | (turn[where] != signs)]] = True  # one component in two places

    for _, normalized, _ in labels.gains:
        inside = np.unique(plain.of[normalized[normalized > ZERO]])
        put(inside, _BEFORE, np.full(len(inside), -1), np.ones(len(inside), np.int64))
    for out, _, name in labels.gains:
        put(plain.of[out], names.index(name), np.arange(len(out)), plain.sign[out])
    wrong |= plain.selfdual & (side >= 0)
    return Sides(plain, side, place, turn, wrong)


def _legs(
    slot: Slot, coordinate: Ints, whole: Components, sides: Sides, ctx: Pass
) -> Iterable[tuple[Leg, Gain | None]]:
    """The legs of one axis, one for each gain (or none) that its channels lie behind."""
    index = coordinate[whole.of[slot.labels]]
    if not (index >= 0).any():
        return
    if slot.offset:
        raise SymmetryError(
            f"Expected '{slot.parameter}' as it is in a stream that is rotated, got it with {slot.offset:g} added. The "
            "stream is not rotated."
        )
    names = list(dict.fromkeys(name for _, _, name in ctx.labels.gains))
    of = sides.plain.of[slot.labels]
    side = np.maximum(sides.side[of], _BEFORE)
    power = np.where(side >= 0, sides.plain.sign[slot.labels] * sides.turn[of], 1)
    for which, sign in np.unique(np.stack([side[index >= 0], power[index >= 0]]), axis=1).T:
        chosen = np.where((side == which) & (power == sign) & (index >= 0), index, -1)
        axis = max(range(chosen.ndim), key=lambda k: (chosen.shape[k] > 1, k))
        gain = None
        if which >= 0:
            order = np.zeros(int(coordinate.max()) + 1, np.int64)
            order[index[chosen >= 0]] = sides.place[of[chosen >= 0]]
            if (order[index[chosen >= 0]] != sides.place[of[chosen >= 0]]).any():
                raise SymmetryError(
                    f"Expected one gain of '{names[which]}' for each channel of the stream in '{slot.parameter}', got "
                    "several: the stream is normalized together with a copy of itself. It is not rotated."
                )
            gain = Gain(names[which], order, ctx.offsets.get(names[which], 0.0))
        yield Leg(slot.parameter, chosen, int(sign), axis), gain
