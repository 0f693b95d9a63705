"""Unknown shifts: one integer per channel that may move by a constant, and the equations between them.

The companion of ``labels`` for the affine part of the gauge group: index −1 stands for "no shift".
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gaugefix.discovery.grouping import distinct_rows
from gaugefix.symmetry import ChannelMap

Ints = NDArray[np.int64]
Terms = list[tuple[float, Tensor]]
"""Σ coefficient · t[index], the index broadcastable to the value's shape."""


@dataclass
class Derived:
    """t[target] = W · Σ terms: a linear map without a bias."""

    target: Ints
    map: ChannelMap
    terms: list[tuple[float, Ints]]


@dataclass
class ParameterShift:
    """How a parameter moves: parameter += Σ terms − W · Σ source (no source: nothing to absorb).

    With ``along``, the gain and the shift of a norm, the parameter is W itself, which has no bias: it takes what a bias
    would take as a multiple of the direction in which its input is constant.
    """

    parameter: str
    terms: list[tuple[float, Ints]]
    map: ChannelMap | None = None
    source: list[tuple[float, Ints]] = field(default_factory=list)
    along: tuple[str | None, str] | None = None


@dataclass
class Shifts:
    """A store of unknowns and equations."""

    count: int = 0
    blocks: list[tuple[int, str]] = field(default_factory=list)
    zero: list[Ints] = field(default_factory=list)
    equations: list[list[tuple[float, Ints]]] = field(default_factory=list)
    derived: list[Derived] = field(default_factory=list)
    legs: list[ParameterShift] = field(default_factory=list)
    tables: dict[str, Tensor] = field(default_factory=dict)
    seen: dict[str, list[Ints]] = field(default_factory=dict)
    multiples: list[Ints] = field(default_factory=list)
    sums: Sums = field(default_factory=lambda: Sums())

    def fresh(self, name: str, *shape: int) -> Tensor:
        """New unknowns; ``name`` says what moves, for the family's name."""
        size = int(np.prod(shape))
        self.blocks.append((self.count, name))
        index = torch.arange(self.count, self.count + size).reshape(shape)
        self.count += size
        return index

    def pin(self, terms: Terms) -> None:
        """Σ terms = 0 at every entry."""
        terms = [(c, i) for c, i in terms if bool((i >= 0).any())]
        if len(terms) == 1:
            self.zero.append(terms[0][1].numpy().ravel())
        elif terms:
            for part in _apart(terms):
                arrays = np.broadcast_arrays(*[i.numpy() for _, i in part])
                rows = distinct_rows(np.stack([a.ravel() for a in arrays], axis=1)).T
                self.equations.append([(c, row) for (c, _), row in zip(part, rows, strict=True)])

    def pin_parameter(self, name: str) -> None:
        """A parameter that is used otherwise than by addition may not shift."""
        if name in self.tables:
            self.zero.append(self.tables[name].reshape(-1).numpy())

    def partly_seen(self) -> list[Ints]:
        """Unknowns of parameters of which this example reads a part only: a longer one would read the rest."""
        read = np.zeros(self.count, bool)
        for seen in self.seen.values():
            for index in seen:
                read[index] = True
        tables = [self.tables[name].reshape(-1).numpy() for name in self.seen]
        return [table for table in tables if not read[table].all()]

    def constant_along(self, terms: Terms, axes: list[int]) -> Terms:
        """Demand that the terms do not vary along ``axes``; return them with these axes of size 1."""
        out: Terms = []
        varying: Terms = []
        for coefficient, index in terms:
            first = index
            for axis in axes:
                if first.shape[axis] > 1:
                    first = first.narrow(axis, 0, 1)
            if first.shape != index.shape:
                varying += [(coefficient, index), (-coefficient, first)]
            out.append((coefficient, first))
        if varying:
            self.pin(varying)
        return out

    def multiple_of_ones(self, terms: Terms, axis: int) -> None:
        """Demand that the terms are λ·1 along ``axis``, with λ unknown.

        A stream is normalized again and again, each time with more in it: what was demanded before is left out.
        """
        terms = [(c, i) for c, i in terms if bool((i >= 0).any())]
        if not terms or all(i.shape[axis] == 1 for _, i in terms):
            return
        number, terms = self.sums.beyond(terms, axis)
        if all(i.shape[axis] == 1 for _, i in terms):
            return
        shape = list(np.broadcast_shapes(*[tuple(i.shape) for _, i in terms]))
        shape[axis] = 1
        multiple = self.fresh("multiple of ones", *shape)
        self.multiples.append(multiple.reshape(-1).numpy())
        self.sums.parts[number].append(multiple.reshape(-1).numpy())
        self.pin([*terms, (-1.0, multiple)])


@dataclass
class Sums:
    """The sums that norms have demanded to be multiples of ones.

    Args:
        known: number of every sum, by its terms.
        inside: the sum that every sum contains, −1 for none.
        parts: the unknowns that it has beyond that one.
    """

    known: dict[frozenset[object], int] = field(default_factory=dict)
    inside: list[int] = field(default_factory=list)
    parts: list[list[Ints]] = field(default_factory=list)
    _kept: list[Tensor] = field(default_factory=list)

    def beyond(self, terms: Terms, axis: int) -> tuple[int, Terms]:
        """Return the number of a sum, and its terms outside the largest known sum within it."""
        count: Counter[object] = Counter()
        keys: list[object] = []
        for coefficient, index in terms:
            place = (index.data_ptr(), index.squeeze().stride(), index.squeeze().shape)  # the same memory, read alike
            key = (coefficient, *place, axis - index.ndim)
            count[key] += 1
            keys.append((key, count[key]))
        whole = frozenset(keys)
        within = max((known for known in self.known if known <= whole), key=len, default=None)
        if within == whole:
            return self.known[whole], []
        number = self.known[whole] = len(self.parts)
        self.inside.append(-1 if within is None else self.known[within])
        rest = [term for term, key in zip(terms, keys, strict=True) if within is None or key not in within]
        self.parts.append([i.numpy().ravel() for _, i in rest])
        self._kept += [index for _, index in terms]
        return number, rest

    def links(self, live: NDArray[np.bool_]) -> list[tuple[Ints, Ints]]:
        """Pairs that hang together because one sum contains another; node ``len(live) + k`` stands for sum k."""
        moving: list[bool] = []
        containing = {*self.inside}
        found: list[tuple[Ints, Ints]] = []
        for k, (inside, parts) in enumerate(zip(self.inside, self.parts, strict=True)):
            if inside >= 0 or k in containing:
                own = np.concatenate(parts)
                own = own[own >= 0]
                found.append((np.full(len(own), len(live) + k), own))
                moving.append(bool(live[own].any()) or (inside >= 0 and moving[inside]))
                if inside >= 0 and moving[inside]:
                    found.append((np.array([len(live) + k]), np.array([len(live) + inside])))
            else:
                moving.append(False)
        return found

    @property
    def count(self) -> int:
        """Number of sums."""
        return len(self.parts)


def _apart(terms: Terms) -> list[Terms]:
    """Terms that vary along different axes can only add up to zero if each is constant: one equation for each."""
    n = max(index.ndim for _, index in terms)
    terms = [(c, index.reshape((1,) * (n - index.ndim) + tuple(index.shape))) for c, index in terms]
    together: list[set[int]] = []
    for _, index in terms:
        axes = {k for k in range(n) if index.shape[k] > 1}
        if axes:
            axes = axes.union(*[other for other in together if other & axes])
            together = [other for other in together if not other & axes] + [axes]

    def only(index: Tensor, axes: set[int]) -> Tensor:
        for axis in range(n):
            index = index if axis in axes else index.narrow(axis, 0, 1)
        return index

    return [[(c, only(index, axes)) for c, index in terms] for axes in together] or [terms]
