"""Read the families of translations off the solved shifts: unknowns that hang together, grouped by what they move."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from gaugefix.discovery.eliminate_shifts import Solution
from gaugefix.discovery.grouping import alike, rank
from gaugefix.discovery.shifts import ParameterShift, Shifts
from gaugefix.discovery.solve_shifts import Order, solve
from gaugefix.groups import Translations
from gaugefix.symmetry import Absorb, AbsorbAlong, Add, Derive, Exactness, Form, ShiftSymmetry, Solve

Ints = NDArray[np.int64]


def read_shifts(shifts: Shifts, exactness: Exactness) -> list[ShiftSymmetry]:
    """Return the families of shifts: unknowns that hang together, grouped by what they move."""
    solution, order = solve(shifts)
    live = ~solution.zero
    free = live.copy()
    for index in [*(record.target for record in shifts.derived), *(s.target for s in solution.solved)]:
        free[index] = False
    families = _Families(np.where(live, _families(shifts, solution), -1), free)
    return families.symmetries(shifts, order, exactness)


def _families(shifts: Shifts, solution: Solution) -> Ints:
    """Family of every unknown: connected by equations and maps, then merged if they move the same parameters."""
    n, live = shifts.count, ~solution.zero
    left, right = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for a, b in [*solution.links, *shifts.sums.links(live)]:
        left.append(a)
        right.append(b)
    for record in shifts.derived:
        touched = np.concatenate([record.target, *[i for _, i in record.terms]])
        touched = touched[touched >= 0]
        touched = touched[live[touched]]
        left.append(np.repeat(touched[:1], max(len(touched) - 1, 0)))
        right.append(touched[1:])
    a, b = np.concatenate(left), np.concatenate(right)
    alive = np.append(live, np.ones(shifts.sums.count, bool))
    keep = alive[a] & alive[b]
    graph = coo_matrix((np.ones(int(keep.sum()), np.int8), (a[keep], b[keep])), shape=(len(alive), len(alive)))
    label = np.asarray(connected_components(graph, directed=False)[1], np.int64)[:n]
    starts = np.array([start for start, _ in shifts.blocks], np.int64)
    block = np.searchsorted(starts, np.arange(n), side="right") - 1
    pairs = np.unique(label[live] * len(starts) + block[live])
    hashes = np.random.default_rng(2).integers(1, 2**62, size=len(starts))
    signature = np.zeros(len(alive), np.int64)
    np.add.at(signature, pairs // max(len(starts), 1), hashes[pairs % max(len(starts), 1)])
    return np.asarray(np.unique(signature[label], return_inverse=True)[1], np.int64)


class _Families:
    """The unknowns of each family, its free ones first.

    Args:
        family: of every unknown, −1 for those that are zero.
        free: whether an unknown is a coordinate.
    """

    def __init__(self, family: Ints, free: NDArray[np.bool_]) -> None:
        self.family = np.append(family, -1)  # index −1: nothing
        order = np.lexsort((~free, family))
        self.local = np.full(len(self.family), -1, np.int64)
        self.local[order] = rank(family[order])
        self.size = np.bincount(family[family >= 0])
        self.dimension = np.bincount(family[free], minlength=len(self.size))
        self.found = [int(family[free][members[0]]) for members in alike(family[free])]

    def symmetries(self, shifts: Shifts, order: Order, exactness: Exactness) -> list[ShiftSymmetry]:
        steps: dict[int, list[Derive | Solve]] = {f: [] for f in self.found}
        for item in order:
            if isinstance(item, int):
                record = shifts.derived[item]
                f = int(self.family[record.target[self.family[record.target] >= 0][0]])
                if f in steps:
                    steps[f].append(Derive(self.local[record.target], record.map, self.form(record.terms, f)))
                continue
            for which in alike(self.family[item.target]):
                f = int(self.family[item.target[which[0]]])
                if f in steps:
                    form = self.form([(c, i[which]) for c, i in item.terms], f)
                    steps[f].append(Solve(self.local[item.target[which]], form))
        legs: dict[int, list[Add | Absorb | AbsorbAlong]] = {f: [] for f in self.found}
        for leg in shifts.legs:
            for f in self.moved(leg):
                if f in legs:
                    legs[f] += self.leg(leg, f)
        names: dict[str, int] = {}
        return [
            ShiftSymmetry(
                _name(legs[f], names),
                exactness,
                acting=Translations(int(self.dimension[f])),
                size=int(self.size[f]),
                steps=tuple(steps[f]),
                legs=tuple(legs[f]),
            )
            for f in self.found
            if legs[f]
        ]

    def moved(self, leg: ParameterShift) -> list[int]:
        """Families that a leg belongs to."""
        found = np.unique(np.concatenate([self.family[i].ravel() for _, i in [*leg.terms, *leg.source]]))
        return [int(f) for f in found if f >= 0]

    def leg(self, leg: ParameterShift, f: int) -> list[Add | Absorb | AbsorbAlong]:
        """What one family does to a parameter."""
        target, source = self.form(leg.terms, f), self.form(leg.source, f)
        if leg.along is not None and leg.map is not None:
            return [AbsorbAlong(leg.map, source, target if target.terms else None, *leg.along)]
        if source.terms and leg.map is not None:
            return [Absorb(leg.parameter, leg.map, source, target if target.terms else None)]
        return [Add(leg.parameter, target)] if target.terms else []

    def form(self, terms: Iterable[tuple[float, Ints]], f: int) -> Form:
        """Terms of one family, in its own numbers."""
        mapped = [(c, np.where(self.family[i] == f, self.local[i], -1)) for c, i in terms]
        return Form(tuple((c, i) for c, i in mapped if (i >= 0).any()))


def _name(legs: Sequence[Add | Absorb | AbsorbAlong], names: dict[str, int]) -> str:
    first: Add | Absorb | AbsorbAlong = next((leg for leg in legs if isinstance(leg, Add)), legs[0])
    name = f"{first.parameter}:shift"
    names[name] = names.get(name, 0) + 1
    return name if names[name] == 1 else f"{name}.{names[name]}"
