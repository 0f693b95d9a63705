"""Read exchanges of whole heads off the solved labels.

Two heads may change places if every operation treats them alike. Channels at the same place of two heads must allow
the same, and occur in the same sums, where a sum that lies within one head counts as the same as its twin in another.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gaugefix.discovery.components import Components
from gaugefix.discovery.interpreter import Pass
from gaugefix.discovery.labels import FIXED, Heads, Labels
from gaugefix.discovery.read_off import Reader
from gaugefix.errors import SymmetryError
from gaugefix.groups import Permutations
from gaugefix.symmetry import LinearSymmetry

Ints = NDArray[np.int64]


def read_heads(ctx: Pass, reader: Reader) -> list[LinearSymmetry]:
    """Return one permutation group for every attention whose heads are alike, in every trace.

    Heads that share keys (grouped queries) move together; exchanges within such a group are left out.
    """
    if not ctx.labels.heads:
        return []
    labels = ctx.labels
    found = reader.found
    bound = ~reader.touched | (found.allowed == 0)
    for triple in labels.products:
        for part in triple:
            bound[found.of[part]] = True
    random = np.random.default_rng(3)
    symmetries = []
    for attentions in _together(labels.heads, found):
        members = _groups(attentions, found)
        if members is None or bound[found.of[members]].any():
            continue
        place, first = _places(members, found)
        if first is None or not _alike(members, place, found, labels, random):
            continue
        try:
            symmetry = reader.blocks("heads", Permutations(len(members)), found.of[members[:, first]])
        except SymmetryError:
            continue  # some head occurs more often than another
        if _straight(symmetry, reader, place):
            symmetries.append(symmetry)
    return symmetries


def _together(heads: Iterable[Heads], found: Components) -> list[list[Heads]]:
    """Attentions that share channels: their heads move together (one attention occurs in every trace, too)."""
    clusters: list[tuple[set[int], list[Heads]]] = []
    for one in heads:
        own = set(np.unique(found.of[np.concatenate([part.ravel() for part in one.members])]).tolist())
        members = [one]
        apart = []
        for channels, others in clusters:
            if own.isdisjoint(channels):
                apart.append((channels, others))
            else:
                own, members = own | channels, others + members
        clusters = [*apart, (own, members)]
    return [members for _, members in clusters]


def _groups(attentions: list[Heads], found: Components) -> Ints | None:
    """(groups, channels) labels: heads with common channels are one group.

    ``None`` if the heads of one of the attentions may not change places, or if the groups differ in size.
    """
    count = attentions[0].count
    if any(heads.reason or heads.count != count for heads in attentions):
        return None
    members = np.concatenate([part.reshape(count, -1) for heads in attentions for part in heads.members], axis=1)
    if (members <= FIXED).any():
        return None
    of = found.of[members]
    group = np.arange(count)
    for column in of.T:
        _, inverse = np.unique(column, return_inverse=True)
        lowest = np.full(int(inverse.max()) + 1, count)
        np.minimum.at(lowest, inverse, group)
        group = np.minimum(group, lowest[inverse])
    names, sizes = np.unique(group, return_counts=True)
    if len(names) < 2 or (sizes != sizes[0]).any():
        return None
    return members[np.argsort(group, kind="stable")].reshape(len(names), -1)


def _places(members: Ints, found: Components) -> tuple[Ints, Ints | None]:
    """Place of every component within its group (−1 outside), and the columns where the places first occur."""
    of = found.of[members]
    place = np.full(found.count, -1, np.int64)
    _, first, inverse = np.unique(of[0], return_index=True, return_inverse=True)
    for row in of:
        _, again, pattern = np.unique(row, return_index=True, return_inverse=True)
        if len(again) != len(first) or (again[pattern] != first[inverse]).any():
            return place, None  # channels repeat in another order
        if (place[row] >= 0).any():
            return place, None  # a channel belongs to two groups
        place[row] = first[inverse]
    return place, np.unique(first)


def _alike(members: Ints, place: Ints, found: Components, labels: Labels, random: np.random.Generator) -> bool:
    """Whether channels at the same place are treated alike in all groups."""
    of = found.of[members]
    same = [found.allowed[of], found.selfdual[of], found.sign[members] * found.sign[members[:, :1]]]
    group = np.full(found.count, -1, np.int64)
    group[of] = np.arange(len(of))[:, None]
    partner = np.full(found.count, -1, np.int64)
    partner[found.planes[:, 0]], partner[found.planes[:, 1]] = found.planes[:, 1], found.planes[:, 0]
    outside = (partner[of] >= 0) & (group[partner[of]] != group[of])
    if outside.any():
        return False
    same.append(np.where(partner[of] >= 0, place[partner[of]], -1))
    same.append(_sums(group, place, found, labels, random)[of])
    return all(bool((array == array[:1]).all()) for array in same)


def _sums(group: Ints, place: Ints, found: Components, labels: Labels, random: np.random.Generator) -> Ints:
    """Key of every component: its sums, those within one group by what they sum only."""
    key = np.zeros(found.count, np.int64)
    at_place = random.integers(1, 2**62, size=int(place.max()) + 1, dtype=np.int64)
    for k, (which, hashes) in enumerate(labels.fibres):
        of = found.of[which]
        if not (group[of] >= 0).any():
            continue
        if k not in labels.alike:
            np.add.at(key, of, hashes)
            continue
        _, row = np.unique(hashes, return_inverse=True)
        low, high = np.full(int(row.max()) + 1, found.count), np.full(int(row.max()) + 1, -2)
        np.minimum.at(low, row, group[of])
        np.maximum.at(high, row, group[of])
        inside = (low == high) & (low >= 0)
        content = np.zeros(len(low), np.int64)
        np.add.at(content, row, np.where(place[of] >= 0, at_place[place[of]], 0))
        salt = random.integers(1, 2**62, dtype=np.int64)
        np.add.at(key, of, np.where(inside[row], content[row] * 3 + salt, hashes))
    return key


def _straight(symmetry: LinearSymmetry, reader: Reader, place: Ints) -> bool:
    """Whether the entries that change places with each other lie at the same place of their heads."""
    by_name: dict[tuple[str, tuple[int, ...]], list[Ints]] = {}
    for slot in reader.slots:
        by_name.setdefault((slot.parameter, slot.labels.shape), []).append(slot.labels)
    for leg in symmetry.legs:
        for labels in by_name[leg.parameter, leg.index.shape]:
            places = place[reader.found.of[labels]]
            if ((places >= 0) == (leg.index >= 0)).all():
                position, _ = leg.positions(symmetry.group.coordinates)
                chosen = places.reshape(-1)[position]
                if (chosen != chosen[:, :1]).any():
                    return False
    return True
