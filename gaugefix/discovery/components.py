"""Solve the constraints on labels: components that transform together, what they allow, which of them form a block."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from gaugefix.discovery.labels import FIXED, LINEAR, NOTHING, Labels

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
    """

    of: Ints
    sign: Ints
    allowed: Ints
    selfdual: NDArray[np.bool_]
    key: Ints

    @property
    def count(self) -> int:
        return len(self.allowed)


def components(labels: Labels) -> Components:
    """Signed connected components of the equal/dual edges.

    Every label gets two nodes, itself and its dual; a component that holds both copies of a label is self-dual.
    """
    n = labels.count
    rows: list[Ints] = [np.zeros(0, np.int64)]
    columns: list[Ints] = [np.zeros(0, np.int64)]
    for a, b, sign in labels.edges:
        rows += [a, a + n]
        columns += [b, b + n] if sign > 0 else [b + n, b]
    row, column = np.concatenate(rows), np.concatenate(columns)
    graph = coo_matrix((np.ones(len(row), np.int8), (row, column)), shape=(2 * n, 2 * n))
    _, found = connected_components(graph, directed=False)
    direct, mirrored = found[:n], found[n:]
    root = np.minimum(direct, mirrored)
    _, of = np.unique(root, return_inverse=True)
    of = of.astype(np.int64)
    sign = np.where(direct <= mirrored, 1, -1)
    size = int(of.max()) + 1
    selfdual = np.zeros(size, bool)
    selfdual[of[direct == mirrored]] = True
    allowed = np.full(size, LINEAR, np.int64)
    allowed[of[FIXED]] = NOTHING
    for which, actions in labels.allowed:
        np.bitwise_and.at(allowed, of[which], actions)
    key = np.zeros(size, np.int64)
    for which, hashes in labels.fibres:
        np.add.at(key, of[which], hashes)
    return Components(of, sign.astype(np.int64), allowed, selfdual, key)


@dataclass(frozen=True)
class Torus:
    """Scales of several components that are tied by products: log s_c = Σ_k exponent[c, k] u_k."""

    members: tuple[int, ...]
    exponents: tuple[tuple[int, ...], ...]


def toruses(labels: Labels, found: Components, free: NDArray[np.bool_]) -> list[Torus]:
    """Solve s_r = s_a + s_b over the components that occur in products.

    Args:
        free: components that may scale at all.

    Returns:
        One solution space per connected system, with whole exponents; components come in label order, and the
        solved ones (products) are expressed by the others.
    """
    if not labels.products:
        return []
    r, a, b = (np.concatenate([p[k] for p in labels.products]) for k in range(3))
    triples = np.stack([found.of[r], found.sign[r], found.of[a], found.sign[a], found.of[b], found.sign[b]], axis=1)
    triples = np.unique(triples, axis=0)
    size = found.count
    ends = np.concatenate([triples[:, [0, 2]], triples[:, [0, 4]], triples[:, [2, 4]]])
    live = free[ends].all(1)  # a fixed channel ties nothing together
    edges = ends[live]
    graph = coo_matrix((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(size, size))
    _, system = connected_components(graph, directed=False)
    involved = np.unique(ends)
    members: dict[int, list[int]] = {}
    for c in involved[free[involved]]:
        members.setdefault(int(system[c]), []).append(int(c))
    rows: dict[int, list[NDArray[np.int64]]] = {}
    for triple in triples:
        for c in triple[[0, 2, 4]]:
            if free[c]:
                rows.setdefault(int(system[c]), []).append(triple)
                break
    cache: dict[tuple[object, ...], tuple[tuple[int, ...], ...]] = {}
    result = []
    for s, own in members.items():
        place = {c: k for k, c in enumerate(own)}
        equations = []
        for triple in rows.get(s, []):
            row = [0] * len(own)
            for c, weight in zip(triple[[0, 2, 4]], (triple[1], -triple[3], -triple[5]), strict=True):
                if int(c) in place:
                    row[place[int(c)]] += int(weight)
            equations.append(tuple(row))
        pattern = (len(own), tuple(sorted(set(equations))))
        if pattern not in cache:
            cache[pattern] = _null_space(pattern[1], len(own))
        if cache[pattern] and any(any(e) for e in cache[pattern]):
            result.append(Torus(tuple(own), cache[pattern]))
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
