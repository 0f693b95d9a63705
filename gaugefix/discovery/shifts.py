"""Unknown shifts: one integer per channel that may move by a constant, and the equations between them.

The companion of ``labels`` for the affine part of the gauge group: index −1 stands for "no shift".
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
            self.zero.append(np.unique(terms[0][1].numpy()))
        elif terms:
            arrays = np.broadcast_arrays(*[i.numpy() for _, i in terms])
            rows = np.unique(np.stack([a.ravel() for a in arrays]), axis=1)
            self.equations.append([(c, row) for (c, _), row in zip(terms, rows, strict=True)])

    def pin_parameter(self, name: str) -> None:
        """A parameter that is used otherwise than by addition may not shift."""
        if name in self.tables:
            self.zero.append(self.tables[name].reshape(-1).numpy())

    def partly_seen(self) -> list[Ints]:
        """Unknowns of parameters of which this example reads a part only: a longer one would read the rest."""
        tables = ((table, self.seen.get(name, [])) for name, table in self.tables.items())
        return [
            t.reshape(-1).numpy() for t, seen in tables if seen and len(np.unique(np.concatenate(seen))) < t.numel()
        ]

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
        """Demand that the terms are λ·1 along ``axis``, with λ unknown."""
        terms = [(c, i) for c, i in terms if bool((i >= 0).any())]
        if not terms or all(i.shape[axis] == 1 for _, i in terms):
            return
        shape = list(np.broadcast_shapes(*[tuple(i.shape) for _, i in terms]))
        shape[axis] = 1
        multiple = self.fresh("multiple of ones", *shape)
        self.multiples.append(multiple.reshape(-1).numpy())
        self.pin([*terms, (-1.0, multiple)])
