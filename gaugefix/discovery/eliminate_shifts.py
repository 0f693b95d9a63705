"""Eliminate the unknowns of the equations between shifts.

A network has one such system for each channel, most of them alike: they are told apart in whole arrays, and every kind
is solved once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from gaugefix.discovery.grouping import distinct_rows, rank, same_lines
from gaugefix.discovery.shifts import Shifts

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass
class Solved:
    """t[target] = Σ coefficient · t[index]: alike unknowns, in arrays of one length."""

    target: Ints
    terms: list[tuple[float, Ints]]


@dataclass
class Solution:
    """Which unknowns are zero, and by what others are given; the rest is free, or derived by a map.

    Args:
        zero: whether an unknown is zero.
        solved: the others.
        links: pairs of unknowns that occur in one system.
        conflict: unknowns given by a map about which equations are left over.
    """

    zero: Bools
    solved: list[Solved] = field(default_factory=list)
    links: list[tuple[Ints, Ints]] = field(default_factory=list)
    conflict: Ints = field(default_factory=lambda: np.zeros(0, np.int64))


def eliminate(shifts: Shifts, zero: Bools, derived: Bools) -> Solution:
    """Gauss–Jordan on every connected system; the latest free unknown of a row is solved for.

    A norm demands the same multiple of ones of all its channels. These few unknowns are the border: without them the
    equations fall apart into one small system for each channel, most of them alike; what the systems leave over are
    equations of the border, solved in the end.
    """
    solution = Solution(zero.copy())
    border = np.zeros(shifts.count, bool)
    for index in shifts.multiples:
        border[index] = True
    left = _solve(solution, _entries(shifts, zero), border, derived | border)
    left = _solve(solution, left, derived, derived)
    solution.conflict = np.unique(left.columns)
    return solution


class _Entries(NamedTuple):
    """Equation, unknown and coefficient of every entry."""

    rows: Ints
    columns: Ints
    values: Floats


_NONE = _Entries(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def _entries(shifts: Shifts, zero: Bools) -> _Entries:
    """All equations; unknowns that are zero left out."""
    found, count = [_NONE], 0
    for equation in shifts.equations:
        for coefficient, index in equation:
            keep = np.flatnonzero((index >= 0) & ~zero[index])
            found.append(_Entries(keep + count, index[keep], np.full(len(keep), coefficient)))
        count += len(equation[0][1])
    return _Entries(*map(np.concatenate, zip(*found, strict=True)))


def _solve(solution: Solution, entries: _Entries, walls: Bools, fixed: Bools) -> _Entries:
    """Eliminate all unknowns that are not ``fixed``; return the equations that are left.

    Systems are connected by the unknowns that are no ``walls``.
    """
    found, count = [_NONE], 0
    for unknowns, matrix in _systems(entries, walls, fixed) if len(entries.rows) else ():
        pivots, rest = _reduce(matrix, fixed[unknowns[0]])
        if unknowns.shape[1] > 1:
            solution.links.append((np.repeat(unknowns[:, 0], unknowns.shape[1] - 1), unknowns[:, 1:].ravel()))
        for pivot, row in pivots:
            terms = [(float(-row[k]), unknowns[:, k]) for k in np.flatnonzero(row) if k != pivot]
            if terms:
                solution.solved.append(Solved(unknowns[:, pivot], terms))
            else:
                solution.zero[unknowns[:, pivot]] = True
        for row in rest:
            members = distinct_rows(unknowns[:, row != 0])
            which = count + np.repeat(np.arange(len(members)), members.shape[1])
            found.append(_Entries(which, members.ravel(), np.tile(row[row != 0], len(members))))
            count += len(members)
    return _Entries(*map(np.concatenate, zip(*found, strict=True)))


def _systems(entries: _Entries, walls: Bools, fixed: Bools) -> Iterator[tuple[Ints, Floats]]:
    """Yield ``(unknowns, matrix)`` of every kind of system: (systems, k) and (equations, k)."""
    rows, columns, values = entries
    n, inner = len(walls), ~walls[columns]
    count = n + int(rows.max()) + 1
    graph = coo_matrix((np.ones(int(inner.sum()), np.int8), (columns[inner], rows[inner] + n)), shape=(count, count))
    system = np.asarray(connected_components(graph, directed=False)[1], np.int64)[rows + n]
    order = np.lexsort((columns, rows, system))
    system, rows, columns, values = system[order], rows[order], columns[order], values[order]
    first = np.flatnonzero(_changes(system, rows, columns))
    values = np.add.reduceat(values, first)
    system, rows, columns = system[first], rows[first], columns[first]
    owner = np.cumsum(_changes(system)) - 1
    line = np.cumsum(_changes(system, rows)) - 1
    begin = np.flatnonzero(_changes(system))
    line -= line[begin][owner]
    pairs, which = np.unique(owner * n + columns, return_inverse=True)
    holder, unknown = np.divmod(pairs, n)
    place = rank(holder)
    # One line for every unknown of a system, then one for every entry.
    described = np.stack([np.full(len(pairs), -1.0), place, fixed[unknown]], axis=1)
    lines = np.concatenate([described, np.stack([line, place[which], values], axis=1)])
    owners = np.concatenate([holder, owner])
    order = np.argsort(owners, kind="stable")
    starts, ends = np.flatnonzero(_changes(holder)), np.append(begin[1:], len(owner))
    sizes = np.diff(np.append(starts, len(holder)))
    for alike in same_lines(owners[order], lines[order]):
        one, size = alike[0], int(sizes[alike[0]])
        part = slice(begin[one], ends[one])
        matrix = np.zeros((int(line[part].max()) + 1, size))
        matrix[line[part], place[which[part]]] = values[part]
        yield unknown[starts[alike][:, None] + np.arange(size)], matrix


def _changes(*keys: Ints) -> Bools:
    """Where a new combination begins."""
    found = np.ones(len(keys[0]), bool)
    found[1:] = False
    for key in keys:
        found[1:] |= key[1:] != key[:-1]
    return found


def _reduce(matrix: Floats, fixed: Bools) -> tuple[list[tuple[int, Floats]], Floats]:
    """Reduced rows with their pivots, and the rows that are left, of fixed unknowns alone."""
    matrix = matrix.copy()
    pivots: list[tuple[int, int]] = []
    level = 0
    for column in reversed(np.flatnonzero(~fixed)):
        if level == len(matrix):
            break
        best = level + int(np.argmax(np.abs(matrix[level:, column])))
        if abs(matrix[best, column]) < 1e-9:
            continue
        matrix[[level, best]] = matrix[[best, level]]
        matrix[level] /= matrix[level, column]
        others = np.flatnonzero(matrix[:, column])
        others = others[others != level]
        if len(others):
            changed = matrix[others] - np.outer(matrix[others, column], matrix[level])
            changed[np.abs(changed) < 1e-12] = 0.0
            matrix[others] = changed
        pivots.append((int(column), level))
        level += 1
    rest = matrix[level:]
    return [(column, matrix[row]) for column, row in pivots], rest[np.abs(rest).sum(1) > 0]
