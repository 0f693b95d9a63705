"""Solve the equations of shifts.

Equations between shifts have constant coefficients and are solved exactly, component by component; maps without a
bias (t_y = W t_x) are kept as steps to be evaluated with the weights of the moment. Where an equation would need a
particular weight to hold (W t_x = 0), the shift is given up: a direction that depends on values is no gauge symmetry
to rely on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gaugefix.discovery.eliminate_shifts import Solution, Solved, eliminate
from gaugefix.discovery.shifts import Shifts

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Order = list[int | Solved]
"""Steps of the evaluation: the number of a map without a bias, or unknowns that an equation gives."""


def solve(shifts: Shifts) -> tuple[Solution, Order]:
    """Eliminate; repeat until no equation asks for a special weight. Return the solution, and how to evaluate it."""
    derived_by = np.full(shifts.count, -1, np.int64)
    for k, record in enumerate(shifts.derived):
        derived_by[record.target] = k
    zero = np.zeros(shifts.count, bool)
    for index in [*shifts.zero, *shifts.partly_seen()]:
        zero[index[index >= 0]] = True
    while True:
        before = int(zero.sum())
        _propagate(shifts, zero)
        solution = eliminate(shifts, zero, derived_by >= 0)
        zero |= solution.zero
        given_up = {*derived_by[np.flatnonzero(zero & (derived_by >= 0))].tolist()}
        given_up |= {*derived_by[solution.conflict].tolist()}
        for k in given_up:
            _give_up(shifts, k, zero)  # (part of) an output that must not shift: its sources stay put
        order = _schedule(shifts, solution, derived_by, zero)
        if isinstance(order, int):
            _give_up(shifts, order, zero)
        elif int(zero.sum()) == before and not len(solution.conflict):
            return solution, order


def _propagate(shifts: Shifts, zero: Bools) -> None:
    """A map of nothing is nothing."""
    for record in shifts.derived:
        if all(zero[i[i >= 0]].all() for _, i in record.terms):
            zero[record.target] = True


def _give_up(shifts: Shifts, record: int, zero: Bools) -> None:
    for _, index in shifts.derived[record].terms:
        zero[index[index >= 0]] = True
    zero[shifts.derived[record].target] = True


def _schedule(shifts: Shifts, solution: Solution, derived_by: Ints, zero: Bools) -> Order | int:
    """Every step after what it depends on; a map that depends on its own result is returned instead."""
    known = np.ones(shifts.count + 1, bool)  # index −1: nothing, which is known
    maps = [k for k, record in enumerate(shifts.derived) if not zero[record.target].all()]
    equations = [_part(s, ~zero[s.target]) for s in solution.solved if not zero[s.target].all()]
    for k in maps:
        known[shifts.derived[k].target] = zero[shifts.derived[k].target]
    for s in equations:
        known[s.target] = False
    order: Order = []
    while maps or equations:
        before = len(order)
        waiting: list[Solved] = []
        for s in equations:
            ready = np.logical_and.reduce([known[i] for _, i in s.terms])
            if ready.any():
                given = _part(s, ready)
                order.append(given)
                known[given.target] = True
            if not ready.all():
                waiting.append(_part(s, ~ready))
        equations = waiting
        ready_maps = [k for k in maps if all(known[i].all() for _, i in shifts.derived[k].terms)]
        for k in ready_maps:
            order.append(k)
            known[shifts.derived[k].target] = True
        maps = [k for k in maps if k not in ready_maps]
        if len(order) == before:
            return _on_a_cycle(shifts, maps[0], equations, derived_by, known)
    return order


def _part(solved: Solved, which: Bools) -> Solved:
    return Solved(solved.target[which], [(c, i[which]) for c, i in solved.terms])


def _on_a_cycle(shifts: Shifts, start: int, equations: list[Solved], derived_by: Ints, known: Bools) -> int:
    """Walk from a map that waits to what it waits for, until a map comes back."""
    seen: set[int] = set()
    record = start
    while record not in seen:
        seen.add(record)
        needed = [i[~known[i]] for _, i in shifts.derived[record].terms]
        unknown = int(np.concatenate(needed)[0])
        while derived_by[unknown] < 0:  # equations give unknowns by free ones and by results of maps
            given = next(s for s in equations if (s.target == unknown).any())
            at = int(np.flatnonzero(given.target == unknown)[0])
            unknown = next(int(i[at]) for _, i in given.terms if not known[i[at]])
        record = int(derived_by[unknown])
    return record
