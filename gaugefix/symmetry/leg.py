"""A leg: how one parameter transforms under one symmetry."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gaugefix.errors import SymmetryError

Index = NDArray[np.int64]


def frozen_index(index: object) -> Index:
    """Copy ``index`` into a read-only int64 array."""
    array: Index = np.array(index, dtype=np.int64)
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class Leg:
    """Which entries of a parameter a group element acts on, and how.

    Entry e of the parameter belongs to coordinate ``index[e]`` of the group (−1: untouched). Under a diagonal
    element it becomes (P_e + offset)·λ^power − offset; under a matrix element the entries of one block along
    ``axis`` are mixed by g (power 1, vector) or g⁻ᵀ (power −1, covector).

    Args:
        parameter: qualified name of the parameter or buffer.
        index: int64, broadcastable to the shape of the parameter: group coordinate of every entry, or −1.
        power: 1 vector, −1 covector; other integers for diagonal groups (2: a running variance).
        axis: the axis along which coordinates vary (and mix).
        offset: constant added before scaling (the eps of a running variance, the 1 of a gain 1 + γ).
        buffer: whether the name is that of a buffer: it moves along but counts in no norm.
    """

    parameter: str
    index: Index
    power: int = 1
    axis: int = 0
    offset: float = 0.0
    buffer: bool = False
    _cache: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", frozen_index(self.index))
        if self.power == 0:
            raise SymmetryError(f"Expected a power other than 0 for the leg on '{self.parameter}'. Leave the leg out.")
        if not -self.index.ndim <= self.axis < self.index.ndim:
            raise SymmetryError(
                f"Expected an axis within {self.index.ndim} axes for the leg on '{self.parameter}', got {self.axis}. "
                "Give the axis that carries the group."
            )
        if not (self.index >= 0).any():
            raise SymmetryError(f"Expected at least one entry for the leg on '{self.parameter}'. Leave the leg out.")

    @property
    def variance(self) -> str:
        """``"vector"`` or ``"covector"``."""
        return "vector" if self.power > 0 else "covector"

    @cached_property
    def axes(self) -> tuple[int, ...]:
        """Axes along which the index varies."""
        varying = tuple(k for k, size in enumerate(self.index.shape) if size > 1)
        return varying or (self.axis % self.index.ndim,)

    @cached_property
    def flat(self) -> bool:
        """Whether the index varies along one axis only."""
        return len(self.axes) == 1

    def tensor(self, device: torch.device) -> Tensor:
        """The index on ``device`` (cached)."""
        key = ("index", device)
        if key not in self._cache:
            self._cache[key] = torch.from_numpy(self.index.copy()).to(device)
        found: Tensor = self._cache[key]
        return found

    def spread(self, values: Tensor, fill: float) -> Tensor:
        """Lay per-coordinate ``values`` (n,) out over the entries; ``fill`` where the leg does not act."""
        if self.covers(values.shape[0]):
            return values.view(self.index.shape)
        index = self.tensor(values.device)
        padded = torch.cat([values, values.new_full((1,), fill)])
        return padded[index]

    def covers(self, n: int) -> bool:
        """Whether the index is exactly 0, 1, …, n−1 along one axis."""
        key = ("covers", n)
        if key not in self._cache:
            flat = self.index.reshape(-1)
            self._cache[key] = flat.size == n and bool((flat == np.arange(n)).all())
        return bool(self._cache[key])

    def collect(self, entries: Tensor, n: int) -> Tensor:
        """Sum ``entries`` (shape of the index) per coordinate: the transpose of :meth:`spread`."""
        flat = entries if entries.ndim == 1 else entries.reshape(-1)
        if self.covers(n):
            return flat
        index = self.tensor(entries.device).reshape(-1)
        out = flat.new_zeros(n + 1)
        return out.index_add_(0, torch.where(index < 0, n, index), flat)[:n]

    def positions(self, n: int) -> tuple[Index, Index]:
        """Group the entries of the index into blocks of n coordinates.

        Returns:
            ``(position, block)``: (M, n) flat positions into the index, in coordinate order, one row for every
            copy of a block, and (M,) the block of each row.

        Raises:
            SymmetryError: if some coordinate of a block occurs less often than another.
        """
        key = ("positions", n)
        if key not in self._cache:
            self._cache[key] = self._group(n)
        found: tuple[Index, Index] = self._cache[key]
        return found

    def places(self, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """:meth:`positions` on ``device`` (cached)."""
        key = ("places", n, device)
        if key not in self._cache:
            self._cache[key] = tuple(torch.from_numpy(array).to(device) for array in self.positions(n))
        found: tuple[Tensor, Tensor] = self._cache[key]
        return found

    def in_order(self, n: int) -> bool:
        """Whether the blocks of n coordinates lie one after another, and nothing else is there."""
        key = ("in order", n)
        if key not in self._cache:
            flat = self.positions(n)[0].reshape(-1)
            self._cache[key] = flat.size == self.index.size and bool((flat == np.arange(flat.size)).all())
        return bool(self._cache[key])

    def _group(self, n: int) -> tuple[Index, Index]:
        flat = self.index.reshape(-1)
        where = np.flatnonzero(flat >= 0)
        order = where[np.argsort(flat[where], kind="stable")]
        coordinates, counts = np.unique(flat[where], return_counts=True)
        starts = np.cumsum(counts) - counts
        names, sizes = np.unique(coordinates // n, return_counts=True)
        uneven = sizes != n
        if not uneven.any():
            uneven = (counts.reshape(-1, n) != counts[::n, None]).any(1)
        if uneven.any():
            block = int(names[np.argmax(uneven)])
            raise SymmetryError(
                f"Expected every coordinate of block {block} equally often in '{self.parameter}', got counts "
                f"{counts[coordinates // n == block].tolist()[:8]}. Such an axis can only be scaled."
            )
        copies = counts[::n]
        row = np.repeat(np.arange(len(names)), copies)
        copy = np.arange(len(row)) - np.repeat(np.cumsum(copies) - copies, copies)
        return order[starts.reshape(-1, n)[row] + copy[:, None]], names[row]
