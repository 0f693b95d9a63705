"""Solve the equations of shifts.

Equations between shifts have constant coefficients and are solved exactly, component by component; maps without a
bias (t_y = W t_x) are kept as steps to be evaluated with the weights of the moment. Where an equation would need a
particular weight to hold (W t_x = 0), the shift is given up: a direction that depends on values is no gauge symmetry
to rely on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from gaugefix.discovery.shifts import Shifts

Ints = NDArray[np.int64]


@dataclass
class Solution:
    """Which unknowns are zero, which are free, and by what the others are given."""

    zero: NDArray[np.bool_]
    solved: dict[int, list[tuple[float, int]]] = field(default_factory=dict)
    links: list[tuple[int, int]] = field(default_factory=list)


def solve(shifts: Shifts) -> Solution:
    """Eliminate; repeat until no equation asks for a special weight."""
    derived_by = np.full(shifts.count, -1, np.int64)
    for k, record in enumerate(shifts.derived):
        derived_by[record.target] = k
    zero = np.zeros(shifts.count, bool)
    for index in [*shifts.zero, *shifts.partly_seen()]:
        zero[index[index >= 0]] = True
    while True:
        before = int(zero.sum())
        _propagate(shifts, zero)
        solution = Solution(zero.copy())
        conflict = _eliminate(shifts, solution, derived_by)
        zero |= solution.zero
        for k in set(derived_by[np.flatnonzero(zero & (derived_by >= 0))].tolist()) | conflict:
            record = shifts.derived[k]
            # (part of) an output that must not shift: its sources stay put
            for _, index in record.terms:
                zero[index[index >= 0]] = True
            zero[record.target] = True
        conflict |= _cycles(shifts, solution, derived_by, zero)
        if int(zero.sum()) == before and not conflict:
            return solution


def _propagate(shifts: Shifts, zero: NDArray[np.bool_]) -> None:
    """A map of nothing is nothing."""
    for record in shifts.derived:
        if all(zero[i[i >= 0]].all() for _, i in record.terms):
            zero[record.target] = True


def _eliminate(shifts: Shifts, solution: Solution, derived_by: Ints) -> set[int]:
    """Gauss–Jordan on every connected system; the latest free unknown of a row is solved for.

    A norm demands the same multiple of ones of all its channels. These few unknowns are the border: without them the
    equations fall apart into one small system for each channel, most of them alike; what the systems leave over are
    equations of the border, solved in the end.
    """
    rows, columns, values, count = _matrix(shifts, solution.zero)
    conflict: set[int] = set()
    if not count:
        return conflict
    n = shifts.count
    border = np.zeros(n, bool)
    for index in shifts.multiples:
        border[index] = True
    inner = ~border[columns]
    graph = coo_matrix((np.ones(int(inner.sum()), np.int8), (columns[inner], rows[inner] + n)), shape=(n + count,) * 2)
    _, label = connected_components(graph, directed=False)
    system = label[rows + n]
    order = np.argsort(system, kind="stable")
    cuts = np.flatnonzero(np.diff(system[order])) + 1
    cache: dict[bytes, tuple[list[tuple[int, NDArray[np.float64]]], NDArray[np.float64]]] = {}
    left: list[tuple[Ints, NDArray[np.float64]]] = []

    def reduce(unknowns: Ints, matrix: NDArray[np.float64], fixed: NDArray[np.bool_]) -> NDArray[np.float64]:
        key = matrix.tobytes() + fixed.tobytes() + bytes(str(matrix.shape), "ascii")
        if key not in cache:
            cache[key] = _reduce(matrix, fixed)
        pivots, rest = cache[key]
        solution.links += [(int(unknowns[0]), int(u)) for u in unknowns[1:]]
        for pivot, row in pivots:
            form = [(float(-row[k]), int(unknowns[k])) for k in np.flatnonzero(row) if k != pivot]
            if form:
                solution.solved[int(unknowns[pivot])] = form
            else:
                solution.zero[unknowns[pivot]] = True
        return rest

    for part in np.split(order, cuts):
        unknowns, matrix = _dense(rows[part], columns[part], values[part])
        rest = reduce(unknowns, matrix, (derived_by[unknowns] >= 0) | border[unknowns])
        left += [(unknowns[row != 0], row[row != 0]) for row in rest]
    unknowns, matrix = _stacked(left)
    if len(matrix):
        rest = reduce(unknowns, matrix, derived_by[unknowns] >= 0)
        broken = np.flatnonzero(np.abs(rest).sum(0) > 0)
        conflict |= {int(derived_by[unknowns[k]]) for k in broken}
    return conflict


def _dense(rows: Ints, columns: Ints, values: NDArray[np.float64]) -> tuple[Ints, NDArray[np.float64]]:
    """The unknowns of some equations, and the equations as a dense matrix over them."""
    unknowns, place = np.unique(columns, return_inverse=True)
    lines, line = np.unique(rows, return_inverse=True)
    matrix = np.zeros((len(lines), len(unknowns)))
    np.add.at(matrix, (line, place), values)
    return unknowns, matrix


def _stacked(equations: list[tuple[Ints, NDArray[np.float64]]]) -> tuple[Ints, NDArray[np.float64]]:
    """Different equations, as a dense matrix over their unknowns."""
    different = {(unknowns.tobytes(), row.tobytes()): (unknowns, row) for unknowns, row in equations}
    if not different:
        return np.zeros(0, np.int64), np.zeros((0, 0))
    rows = np.concatenate([np.full(len(u), k) for k, (u, _) in enumerate(different.values())])
    columns = np.concatenate([u for u, _ in different.values()])
    return _dense(rows, columns, np.concatenate([row for _, row in different.values()]))


def _matrix(shifts: Shifts, zero: NDArray[np.bool_]) -> tuple[Ints, Ints, NDArray[np.float64], int]:
    rows, columns, values, count = [], [], [], 0
    for equation in shifts.equations:
        size = len(equation[0][1])
        for coefficient, index in equation:
            keep = (index >= 0) & ~zero[index]
            rows.append(np.flatnonzero(keep) + count)
            columns.append(index[keep])
            values.append(np.full(int(keep.sum()), coefficient))
        count += size
    if not count:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), 0
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(values), count


def _reduce(
    matrix: NDArray[np.float64], fixed: NDArray[np.bool_]
) -> tuple[list[tuple[int, NDArray[np.float64]]], NDArray[np.float64]]:
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
        others = np.arange(len(matrix)) != level
        matrix[others] -= np.outer(matrix[others, column], matrix[level])
        matrix[np.abs(matrix) < 1e-12] = 0.0
        pivots.append((int(column), level))
        level += 1
    rest = matrix[level:]
    return [(column, matrix[row]) for column, row in pivots], rest[np.abs(rest).sum(1) > 0]


def _cycles(shifts: Shifts, solution: Solution, derived_by: Ints, zero: NDArray[np.bool_]) -> set[int]:
    """Records whose evaluation would depend on themselves are given up."""
    try:
        schedule(shifts, solution, derived_by, zero)
    except _CycleError as error:
        record = shifts.derived[error.record]
        for _, index in record.terms:
            zero[index[index >= 0]] = True
        zero[record.target] = True
        return {error.record}
    return set()


class _CycleError(Exception):
    def __init__(self, record: int) -> None:
        self.record = record


def schedule(shifts: Shifts, solution: Solution, derived_by: Ints, zero: NDArray[np.bool_]) -> list[tuple[str, int]]:
    """Order of evaluation: ``("derive", record)`` and ``("solve", unknown)``, each after what it depends on."""
    order: list[tuple[str, int]] = []
    state: dict[tuple[str, int], int] = {}

    def needs(item: tuple[str, int]) -> Iterable[int]:
        if item[0] == "derive":
            for _, index in shifts.derived[item[1]].terms:
                yield from (int(i) for i in np.unique(index) if i >= 0)
        else:
            yield from (i for _, i in solution.solved[item[1]])

    def visit(start: tuple[str, int]) -> None:
        stack = [(start, iter(list(needs(start))))]
        state[start] = 1
        while stack:
            item, pending = stack[-1]
            for unknown in pending:
                if zero[unknown]:
                    continue
                if derived_by[unknown] >= 0:
                    after = ("derive", int(derived_by[unknown]))
                elif unknown in solution.solved:
                    after = ("solve", unknown)
                else:
                    continue
                if state.get(after) == 1:
                    raise _CycleError(after[1] if after[0] == "derive" else next(r for k, r in state if k == "derive"))
                if after not in state:
                    state[after] = 1
                    stack.append((after, iter(list(needs(after)))))
                    break
            else:
                state[item] = 2
                order.append(item)
                stack.pop()

    for k, record in enumerate(shifts.derived):
        if not zero[record.target].all() and ("derive", k) not in state:
            visit(("derive", k))
    for unknown in solution.solved:
        if not zero[unknown] and ("solve", unknown) not in state:
            visit(("solve", unknown))
    return order
