"""Read the linear symmetries off the solved labels: which group acts on which legs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gaugefix.discovery.components import Components, components, toruses
from gaugefix.discovery.grouping import alike, distinct
from gaugefix.discovery.interpreter import Pass
from gaugefix.discovery.labels import MIX, PERMUTE, SCALE, SIGN, Labels
from gaugefix.errors import SymmetryError
from gaugefix.groups import (
    ComplexScaling,
    GeneralLinear,
    Group,
    Orthogonal,
    Permutations,
    PositiveScaling,
    SignedScaling,
    Signs,
)
from gaugefix.symmetry import Exactness, Leg, LinearSymmetry

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Slot:
    """Labels of one axis (or pair of axes) of one parameter or buffer."""

    parameter: str
    labels: Ints
    power: int = 1
    offset: float = 0.0
    buffer: bool = False


@dataclass
class Reader:
    """Turns components into symmetries."""

    slots: list[Slot]
    found: Components
    exactness: Exactness
    touched: NDArray[np.bool_] = field(init=False)
    signature: Ints = field(init=False)
    orient: Ints = field(init=False)
    names: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size = self.found.count
        self.touched = np.zeros(size, bool)
        self.signature = np.zeros(size, np.int64)
        self.orient = np.ones(size, np.int64)
        random = np.random.default_rng(1)
        first = np.full(size, np.iinfo(np.int64).max)
        by_slot = []
        for slot in self.slots:
            labels = distinct(slot.labels)
            inside = distinct(self.found.of[labels])
            by_slot.append(inside)
            self.signature[inside] += random.integers(1, 2**62)
            if not slot.buffer:
                self.touched[inside] = True
                np.minimum.at(first, self.found.of[labels], labels)
        known = first < np.iinfo(np.int64).max
        self.orient[known] = self.found.sign[first[known]]
        component = np.concatenate([np.zeros(0, np.int64), *by_slot])
        order = np.argsort(component, kind="stable")
        self._slot = np.repeat(np.arange(len(by_slot)), [len(inside) for inside in by_slot])[order]
        self._where = np.searchsorted(component[order], np.arange(size + 1))
        self._coordinate = np.full(size, -1, np.int64)
        self._exponent = np.zeros(size, np.int64)

    def symmetry(self, kind: str, group: Group, members: Ints, exponents: Ints) -> LinearSymmetry:
        """Build a symmetry.

        Args:
            kind: last part of its name.
            group: what acts.
            members: (coordinates, k) components of every coordinate of the group.
            exponents: (coordinates, k) powers by which they scale, 0 for those that do not.
        """
        for column, powers in zip(members.T, exponents.T, strict=True):
            moving = np.flatnonzero(powers)
            self._coordinate[column[moving]] = moving
            self._exponent[column[moving]] = powers[moving]
        legs: list[Leg] = []
        for k in self._slots_of(members[exponents != 0]):
            legs += self._legs(self.slots[k], isinstance(group, Permutations))
        self._coordinate[members], self._exponent[members] = -1, 0
        return LinearSymmetry(self._name(kind, legs), self.exactness, acting=group, legs=tuple(legs))

    def simple(self, kind: str, group: Group, members: Ints) -> LinearSymmetry:
        """One component per coordinate, turned so that the earliest parameter is a vector."""
        column = members[:, None]
        return self.symmetry(kind, group, column, self.orient[column])

    def blocks(self, kind: str, group: Group, members: Ints) -> LinearSymmetry:
        """Whole blocks: (coordinates, k) components of every block, all of which move alike."""
        return self.symmetry(kind, group, members, np.ones_like(members))

    def _slots_of(self, members: Ints) -> list[int]:
        """Slots in which some of these components occur."""
        begin, count = self._where[members], self._where[members + 1] - self._where[members]
        inside = np.repeat(begin - np.cumsum(count) + count, count) + np.arange(count.sum())
        return list(np.unique(self._slot[inside]))

    def _legs(self, slot: Slot, places_only: bool) -> Iterable[Leg]:
        of = self.found.of[slot.labels]
        power = self._exponent[of] * self.found.sign[slot.labels] * slot.power
        if places_only:
            power = np.ones_like(of)
        index = self._coordinate[of]
        for p in np.unique(power[index >= 0]):
            if p == 0:
                continue
            chosen = np.where((power == p) & (index >= 0), index, -1)
            axis = max(range(chosen.ndim), key=lambda k: (chosen.shape[k] > 1, k))
            yield Leg(slot.parameter, chosen, int(p), axis, 0.0 if places_only else slot.offset, slot.buffer)

    def _name(self, kind: str, legs: list[Leg]) -> str:
        owner = next((leg for leg in legs if leg.power > 0 and not leg.buffer), legs[0]).parameter
        name = f"{owner.rsplit('.', 1)[0] if '.' in owner else owner}:{kind}"
        self.names[name] = self.names.get(name, 0) + 1
        return name if self.names[name] == 1 else f"{name}.{self.names[name]}"


def slots_of(ctx: Pass, order: Iterable[str]) -> list[Slot]:
    """All labelled axes, in the order of the model's parameters, running statistics last."""
    slots = [
        Slot(name, leg.numpy(), offset=ctx.offsets.get(name, 0.0))
        for name in order
        if name in ctx.legs
        for leg in ctx.legs[name]
    ]
    for name, (labels, power, offset) in ctx.statistics.items():
        slots.append(Slot(name, labels.reshape(-1).numpy(), power, offset, buffer=True))
    return slots


def reader_of(ctx: Pass, order: Iterable[str], exactness: Exactness) -> Reader:
    """Solve the labels of one pass."""
    return Reader(slots_of(ctx, order), components(ctx.labels), exactness)


def read_linear(ctx: Pass, reader: Reader, discrete: bool = True) -> list[LinearSymmetry]:
    """Return the linear symmetries of one pass (without ``discrete``, the continuous ones)."""
    found = reader.found
    consumed = np.zeros(found.count, bool)
    for labels in ctx.labels.consumed:
        consumed[found.of[labels]] = True
    alive = reader.touched & consumed & (found.allowed != 0)
    tied = np.zeros(found.count, bool)
    for triple in ctx.labels.products:
        for labels in triple:
            tied[found.of[labels]] = True
    symmetries, members = _mixing(reader, alive & ~tied)
    mixed = np.zeros(found.count, bool)
    mixed[members] = True
    turning = np.zeros(found.count, bool)
    turning[found.planes.ravel()] = True
    symmetries += _planes(reader, alive)
    symmetries += _scalings(reader, alive & ~tied & ~mixed & ~turning)
    symmetries += _products(reader, ctx.labels, consumed, discrete)
    return symmetries + (_permutations(reader, ctx.labels, mixed) if discrete else [])


def _mixing(reader: Reader, free: NDArray[np.bool_]) -> tuple[list[LinearSymmetry], Ints]:
    """GL(n) and O(n) blocks: components with equal keys; blocks with equal legs are batched."""
    found = reader.found
    mixing = np.flatnonzero(free & ((found.allowed & MIX) > 0))
    blocks = alike(found.selfdual[mixing], found.key[mixing], reader.signature[mixing], least=2)
    batches: dict[tuple[bool, int, int], list[Ints]] = {}
    for members in (mixing[block] for block in blocks):
        kind = bool(found.selfdual[members[0]]), len(members), int(reader.signature[members[0]])
        batches.setdefault(kind, []).append(members)
    symmetries, used = [], [np.zeros(0, np.int64)]
    for (selfdual, n, _), batch in batches.items():
        group: Group = Orthogonal(n, len(batch)) if selfdual else GeneralLinear(n, len(batch))
        try:
            symmetries.append(reader.simple("rotation" if selfdual else "mixing", group, np.concatenate(batch)))
        except SymmetryError:
            continue  # coordinates do not occur equally often in some leg: they can still be scaled one by one
        used += batch
    return symmetries, np.concatenate(used)


def _planes(reader: Reader, free: NDArray[np.bool_]) -> list[LinearSymmetry]:
    """Planes that rotary positions turn; those with equal legs are batched."""
    planes = reader.found.planes
    planes = planes[free[planes].all(1) & (reader.signature[planes[:, 0]] == reader.signature[planes[:, 1]])]
    symmetries = []
    for signature in np.unique(reader.signature[planes[:, 0]]):
        batch = planes[reader.signature[planes[:, 0]] == signature]
        try:
            symmetries.append(reader.simple("planes", ComplexScaling(len(batch)), batch.ravel()))
        except SymmetryError:
            continue  # the channels of a plane do not occur equally often in some leg
    return symmetries


def _scalings(reader: Reader, free: NDArray[np.bool_]) -> list[LinearSymmetry]:
    """Diagonal groups of components that occur in no product; units with equal legs form one symmetry."""
    found = reader.found
    scale = free & ((found.allowed & SCALE) > 0) & ~found.selfdual
    sign = free & ((found.allowed & SIGN) > 0)
    symmetries = []
    moving = np.flatnonzero(scale | sign)
    for group in alike(scale[moving], sign[moving], reader.signature[moving]):
        units = moving[group]
        kind = ("signed" if sign[units[0]] else "scale") if scale[units[0]] else "sign"
        name = "sign" if kind == "sign" else "scale"
        symmetries.append(reader.simple(name, _diagonal(kind, len(units)), units))
    return symmetries


def _diagonal(kind: str, n: int) -> Group:
    if kind == "sign":
        return Signs(n)
    return SignedScaling(n) if kind == "signed" else PositiveScaling(n)


def _products(reader: Reader, labels: Labels, consumed: NDArray[np.bool_], discrete: bool) -> list[LinearSymmetry]:
    """Scales that are tied by products, one family per basis vector of the solutions."""
    found = reader.found
    scale = ((found.allowed & SCALE) > 0) & ~found.selfdual
    sign = (found.allowed & SIGN) > 0
    symmetries = []
    for free, signs_only in ((scale, False), (sign, True))[: 1 + discrete]:
        for torus in toruses(labels, found, free):
            for solution in torus.exponents.T:
                members, powers = torus.members[:, solution != 0], solution[solution != 0]
                wanted = reader.touched[members].any(1) & consumed[members].any(1)  # of a gain, the product is read
                if signs_only:  # flips of channels that scale are part of their scaling
                    wanted &= ~scale[members].all(1)
                odd = powers % 2 != 0
                flips = sign[members[:, odd]].all(1)
                kinds = np.full(len(members), 2) if signs_only else flips.astype(np.int64)
                legs = (reader.signature[members] * (2 * powers + 1)).sum(1)
                for key in np.unique(np.stack([kinds, legs], axis=1)[wanted], axis=0):
                    units = members[wanted & (kinds == key[0]) & (legs == key[1])]
                    kind = ("scale", "signed", "sign")[key[0]]
                    turned = _towards_first(reader, units, powers)
                    name = "sign" if kind == "sign" else "scale"
                    symmetries.append(reader.symmetry(name, _diagonal(kind, len(units)), units, turned))
    return symmetries


def _towards_first(reader: Reader, members: Ints, powers: Ints) -> Ints:
    """Turn units so that the component of the earliest parameter scales as a vector."""
    touched = reader.touched[members]
    first = np.argmax(touched, axis=1)
    leader = members[np.arange(len(members)), first]
    turn = np.where(touched.any(1), powers[first] * reader.orient[leader], 1)
    return np.asarray(powers[None, :] * np.where(turn < 0, -1, 1)[:, None], np.int64)


def _permutations(reader: Reader, labels: Labels, mixed: NDArray[np.bool_]) -> list[LinearSymmetry]:
    """Units that may be exchanged: products tie the places of their factors; keys must agree throughout."""
    ties = Labels(count=labels.count, allowed=labels.allowed, fibres=labels.fibres)
    ties.edges = [(a, b, 1) for a, b, _ in labels.edges]
    for r, a, b in labels.products:
        ties.edges += [(r[a > 1], a[a > 1], 1), (r[b > 1], b[b > 1], 1)]
    ties.edges += [(a, b, 1) for a, b in labels.ties]
    found = components(ties)
    whole = Reader(reader.slots, found, reader.exactness)
    consumed = np.zeros(found.count, bool)
    for used in labels.consumed:
        consumed[found.of[used]] = True
    inside = np.zeros(found.count, bool)
    inside[found.of[np.flatnonzero(mixed[reader.found.of])]] = True
    free = whole.touched & consumed & ((found.allowed & PERMUTE) > 0) & ~inside
    units = np.flatnonzero(free)
    symmetries = []
    for block in alike(found.key[units], whole.signature[units], least=2):
        try:
            symmetries.append(whole.simple("permutation", Permutations(len(block)), units[block]))
        except SymmetryError:
            continue  # some unit occurs more often than another
    return symmetries
