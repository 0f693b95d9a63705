"""Read the families of translations off the solved shifts: unknowns that hang together, grouped by what they move."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from gaugefix.discovery.shifts import Derived, Shifts
from gaugefix.discovery.solve_shifts import Solution, schedule, solve
from gaugefix.groups import Translations
from gaugefix.symmetry import Absorb, AbsorbAlong, Add, Derive, Exactness, Form, ShiftSymmetry, Solve

Ints = NDArray[np.int64]


def read_shifts(shifts: Shifts, exactness: Exactness) -> list[ShiftSymmetry]:
    """Return the families of shifts: unknowns that hang together, grouped by what they move."""
    solution = solve(shifts)
    derived_by = np.full(shifts.count, -1, np.int64)
    for k, record in enumerate(shifts.derived):
        derived_by[record.target] = k
    family = _families(shifts, solution, derived_by)
    order = schedule(shifts, solution, derived_by, solution.zero)
    live = ~solution.zero
    free = live & (derived_by < 0)
    free[list(solution.solved)] = False
    result: list[ShiftSymmetry] = []
    names: dict[str, int] = {}
    for f in np.unique(family[free]):
        own = np.flatnonzero(free & (family == f))
        symmetry = _family(shifts, solution, order, own, live & (family == f), exactness, names)
        if symmetry is not None:
            result.append(symmetry)
    return result


def _families(shifts: Shifts, solution: Solution, derived_by: Ints) -> Ints:
    """Family of every unknown: connected by equations and maps, then merged if they move the same parameters."""
    n = shifts.count
    links = [link for link in solution.links if not solution.zero[list(link)].any()]
    for record in shifts.derived:
        touched = np.unique(np.concatenate([record.target, *[i for _, i in record.terms]]))
        touched = touched[(touched >= 0)]
        touched = touched[~solution.zero[touched]]
        links += [(int(touched[0]), int(u)) for u in touched[1:]]
    a, b = (np.array([link[k] for link in links], np.int64) for k in range(2))
    _, label = connected_components(coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(n, n)), directed=False)
    random = np.random.default_rng(2)
    signature = np.zeros(n, np.int64)
    starts = [start for start, _ in shifts.blocks] + [n]
    for begin, end in pairwise(starts):
        inside = np.unique(label[begin:end][~solution.zero[begin:end]])
        signature[inside] += random.integers(1, 2**62)
    _, merged = np.unique(signature[label], return_inverse=True)
    return merged.astype(np.int64)


def _family(
    shifts: Shifts,
    solution: Solution,
    order: list[tuple[str, int]],
    free: Ints,
    members: NDArray[np.bool_],
    exactness: Exactness,
    names: dict[str, int],
) -> ShiftSymmetry | None:
    local = np.full(shifts.count + 1, -1, np.int64)
    rest = np.setdiff1d(np.flatnonzero(members), free)
    local[free] = np.arange(len(free))
    local[rest] = len(free) + np.arange(len(rest))

    def form(terms: Iterable[tuple[float, Ints]]) -> Form:
        mapped = [(c, local[i]) for c, i in terms]
        return Form(tuple((c, i) for c, i in mapped if (i >= 0).any()))

    steps: list[Derive | Solve] = []
    for kind, k in order:
        if kind == "derive":
            record: Derived = shifts.derived[k]
            if members[record.target].any():
                steps.append(Derive(local[record.target], record.map, form(record.terms)))
        elif members[k]:
            terms = [(c, np.array([i])) for c, i in solution.solved[k]]
            steps.append(Solve(local[np.array([k])], form(terms)))
    legs: list[Add | Absorb | AbsorbAlong] = []
    for leg in shifts.legs:
        target, source = form(leg.terms), form(leg.source)
        if leg.along is not None and leg.map is not None:
            if source.terms or target.terms:
                legs.append(AbsorbAlong(leg.map, source, target if target.terms else None, *leg.along))
        elif source.terms and leg.map is not None:
            legs.append(Absorb(leg.parameter, leg.map, source, target if target.terms else None))
        elif target.terms:
            legs.append(Add(leg.parameter, target))
    if not legs:
        return None
    name = f"{_owner(legs)}:shift"
    names[name] = names.get(name, 0) + 1
    name = name if names[name] == 1 else f"{name}.{names[name]}"
    steps = _merge(steps)
    return ShiftSymmetry(
        name, exactness, acting=Translations(len(free)), size=int(members.sum()), steps=tuple(steps), legs=tuple(legs)
    )


def _owner(legs: Sequence[Add | Absorb | AbsorbAlong]) -> str:
    first: Add | Absorb | AbsorbAlong = next((leg for leg in legs if isinstance(leg, Add)), legs[0])
    return first.parameter


def _merge(steps: list[Derive | Solve]) -> list[Derive | Solve]:
    """Join neighbouring one-unknown equations of the same pattern into one vector equation."""
    merged: list[Derive | Solve] = []
    run: list[Solve] = []
    targets: set[int] = set()

    def close() -> None:
        if run:
            forms = [step.form.terms for step in run]
            terms = tuple((column[0][0], np.concatenate([i for _, i in column])) for column in zip(*forms, strict=True))
            merged.append(Solve(np.concatenate([step.target for step in run]), Form(terms)))
            run.clear()
            targets.clear()

    for step in steps:
        if not isinstance(step, Solve):
            close()
            merged.append(step)
            continue
        terms = step.form.terms
        same = run and [c for c, _ in terms] == [c for c, _ in run[-1].form.terms]
        if not same or any(int(v) in targets for _, i in terms for v in i):
            close()
        run.append(step)
        targets.update(int(t) for t in step.target)
    close()
    return merged
