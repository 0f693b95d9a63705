"""Solve the constraints on labels: components that transform together, what they allow, which of them form a block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from gaugefix.discovery.grouping import distinct_rows, rank, same_lines
from gaugefix.discovery.labels import FIXED, LINEAR, NOTHING, TURN, ZERO, Labels

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Components:
    """Labels joined by equality and duality.

    Args:
        of: component of every label.
        sign: +1 or −1 of every label: dual to the component's root or not.
        allowed: actions that every component allows.
        selfdual: components that are dual to themselves (g = g⁻ᵀ).
        key: hash of the sums in which a component occurs.
        planes: (planes, 2) pairs of components that turn by a common angle; every other pair that rotary positions
            turn scales alike, and is one component.
        centred: components over which a norm takes the mean.
    """

    of: Ints
    sign: Ints
    allowed: Ints
    selfdual: NDArray[np.bool_]
    key: Ints
    planes: Ints
    centred: NDArray[np.bool_]

    @property
    def count(self) -> int:
        """Number of components."""
        return len(self.allowed)


Edges = list[tuple[Ints, Ints, int]]


def components(labels: Labels, more: Sequence[tuple[Ints, Ints, int]] = ()) -> Components:
    """Signed connected components of the equal/dual edges (and ``more`` of them).

    Every label gets two nodes, itself and its dual; a component that holds both copies of a label is self-dual.
    Planes whose channels may not turn are joined, until those that are left may.
    """
    edges: Edges = [*labels.edges, *more]
    while True:
        found = _join(labels, edges)
        broken = _broken_planes(labels, found)
        if not broken:
            return found
        edges += broken


def _join(labels: Labels, edges: Edges) -> Components:
    n = labels.count
    rows: list[Ints] = [np.zeros(0, np.int64)]
    columns: list[Ints] = [np.zeros(0, np.int64)]
    for a, b, sign in edges:
        rows += [a, a + n]
        columns += [b, b + n] if sign > 0 else [b + n, b]
    row, column = np.concatenate(rows), np.concatenate(columns)
    graph = coo_matrix((np.ones(len(row), np.int8), (row, column)), shape=(2 * n, 2 * n))
    found: Ints = np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)
    direct, mirrored = found[:n], found[n:]
    root = np.minimum(direct, mirrored)
    occurs = np.zeros(int(found.max()) + 1, np.int64)
    occurs[root] = 1
    of: Ints = (np.cumsum(occurs) - 1)[root]
    signs: Ints = np.where(direct <= mirrored, 1, -1).astype(np.int64)
    size = int(of.max()) + 1
    selfdual = np.zeros(size, bool)
    selfdual[of[direct == mirrored]] = True
    allowed = np.full(size, LINEAR, np.int64)
    allowed[of[FIXED]] = NOTHING
    for which, actions in labels.allowed:
        allowed[of[which]] &= actions
    key = np.zeros(size, np.int64)
    for which, hashes in labels.fibres:
        np.add.at(key, of[which], hashes)
    centred = np.zeros(size, bool)
    for which in labels.centred:
        centred[of[which]] = True
    pairs = [np.sort(of[np.stack(plane, axis=1)], axis=1) for plane in labels.planes]
    planes = np.unique(np.concatenate(pairs), axis=0) if pairs else np.zeros((0, 2), np.int64)
    return Components(of, signs, allowed, selfdual, key, planes[planes[:, 0] != planes[:, 1]], centred)


def _broken_planes(labels: Labels, found: Components) -> Edges:
    """Planes that may not turn, as edges that tie their scales.

    Both channels must allow it, be no duals of themselves, occur in the same sums and belong to no other plane.
    """
    often = np.bincount(found.planes.ravel(), minlength=found.count)
    edges: Edges = []
    for a, b in labels.planes:
        left, right = found.of[a], found.of[b]
        good = (found.allowed[left] & found.allowed[right] & TURN) > 0
        good &= (found.key[left] == found.key[right]) & (found.sign[a] == found.sign[b])
        good &= ~(found.selfdual[left] | found.selfdual[right])
        good &= (often[left] == 1) & (often[right] == 1) & (a > ZERO) & (b > ZERO)
        joined = (left == right) & ((found.sign[a] == found.sign[b]) | found.selfdual[left])
        bad = ~good & ~joined
        if bad.any():
            edges.append((a[bad], b[bad], 1))
    return edges


@dataclass(frozen=True, eq=False)
class Torus:
    """Scales of several components that are tied by products: log s_c = Σ_k exponent[c, k] u_k.

    Args:
        members: (systems, components of one system): systems of the same form, one row each.
        exponents: (components, solutions) whole numbers.
    """

    members: Ints
    exponents: Ints


def toruses(labels: Labels, found: Components, free: NDArray[np.bool_]) -> list[Torus]:
    """Solve s_r = s_a + s_b over the components that occur in products.

    Args:
        labels: the store with the products.
        found: its solved components.
        free: components that may scale at all.

    Returns:
        The solution spaces of the connected systems, those of the same form together; components come in label
        order, and the solved ones (products) are expressed by the others.
    """
    if not labels.products:
        return []
    r, a, b = (np.concatenate([p[k] for p in labels.products]) for k in range(3))
    ends = np.stack([found.of[x] for x in (r, a, b)], axis=1)
    some = free[ends].any(1)  # a fixed channel ties nothing together
    ends, r, a, b = ends[some], r[some], a[some], b[some]
    moving = free[ends]
    if not len(ends):
        return []
    weights = np.stack([found.sign[r], -found.sign[a], -found.sign[b]], axis=1) * moving
    joined = np.concatenate([ends[:, [0, 1]], ends[:, [0, 2]], ends[:, [1, 2]]])
    joined = joined[free[joined].all(1)]
    graph = coo_matrix((np.ones(len(joined), np.int8), (joined[:, 0], joined[:, 1])), shape=(found.count,) * 2)
    system = np.asarray(connected_components(graph, directed=False)[1], np.int64)
    occurs = np.zeros(found.count, bool)
    occurs[ends[moving]] = True
    members = np.flatnonzero(occurs)
    members = members[np.argsort(system[members], kind="stable")]
    place = np.zeros(found.count, np.int64)
    place[members] = rank(system[members])
    at = system[ends[np.arange(len(ends)), np.argmax(moving, axis=1)]]
    lines = np.stack([place[ends] * (weights != 0), weights], axis=2).reshape(len(ends), -1)
    table = distinct_rows(np.concatenate([at[:, None], lines], axis=1))
    starts = np.flatnonzero(np.concatenate([[True], np.diff(system[members]) != 0, [True]]))
    result = []
    for alike in same_lines(table[:, 0], table[:, 1:]):
        begin, size = starts[alike], int(starts[alike[0] + 1] - starts[alike[0]])
        equations = set()
        for line in table[table[:, 0] == system[members[begin[0]]], 1:].reshape(-1, 3, 2):
            row = [0] * size
            for position, weight in line:
                row[position] += int(weight)
            equations.add(tuple(row))
        exponents = np.array(_null_space(tuple(sorted(equations)), size), np.int64).reshape(size, -1)
        if exponents.any():
            result.append(Torus(members[begin[:, None] + np.arange(size)], exponents))
    return result


def _null_space(rows: tuple[tuple[int, ...], ...], n: int) -> tuple[tuple[int, ...], ...]:
    """Whole-number basis of {x : rows·x = 0}, one row per unknown; the latest unknowns are solved for."""
    matrix = [[Fraction(v) for v in row] for row in rows]
    pivots: dict[int, int] = {}
    level = 0
    for column in reversed(range(n)):
        pick = next((k for k in range(level, len(matrix)) if matrix[k][column]), None)
        if pick is None:
            continue
        matrix[level], matrix[pick] = matrix[pick], matrix[level]
        head = matrix[level][column]
        matrix[level] = [v / head for v in matrix[level]]
        for k in range(len(matrix)):
            if k != level and matrix[k][column]:
                factor = matrix[k][column]
                matrix[k] = [v - factor * w for v, w in zip(matrix[k], matrix[level], strict=True)]
        pivots[column] = level
        level += 1
    free = [c for c in range(n) if c not in pivots]
    basis = []
    for f in free:
        vector = [Fraction(0)] * n
        vector[f] = Fraction(1)
        for column, row in pivots.items():
            vector[column] = -matrix[row][f]
        scale = int(np.lcm.reduce([v.denominator for v in vector]))
        basis.append([int(v * scale) for v in vector])
    return tuple(tuple(vector[c] for vector in basis) for c in range(n))
