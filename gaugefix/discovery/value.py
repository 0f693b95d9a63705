"""What the interpreter knows about one value of the graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from gaugefix.discovery.labels import FIXED, ZERO, Heads
from gaugefix.discovery.shifts import Terms


@dataclass(frozen=True, eq=False)
class Source:
    """A value that is a parameter, or a rearrangement of its entries.

    Args:
        name: canonical name.
        entries: flat position of each entry in the parameter; ``None`` while it is the parameter as it is.
        offset: a constant that was added (the 1 of a gain 1 + γ).
    """

    name: str
    entries: Tensor | None = None
    offset: float = 0.0


@dataclass(frozen=True)
class Relation:
    """Σ_i y_i/γ_i = Σ_i β_i/γ_i along ``axis``, for every input: what a layer norm leaves behind."""

    axis: int
    gain: str | None
    shift: str | None


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the graph, seen as labelled channels.

    Args:
        shape: of the traced tensor.
        legs: label arrays, each broadcastable to the shape (size 1 where nothing varies). No leg: nothing acts.
        known: the tensor itself, if it is the same for every input and every parameter value.
        shift: by which constant the value may move.
        source: the parameter that it is.
        relation: a linear relation that it obeys.
        buffer: name of the buffer that it is.
        normalized: whether it is the output of a norm, before its gain.
        pending: shifts of keys that have reached the scores, each a number that is the same along the last axis.
        masked: whether entries that a softmax gives no weight hold a number in place of the pending shift.
        stochastic: whether the entries along the last axis sum to one.
        heads: of scores and attention weights: the heads, which lie along the third axis from the end.
    """

    shape: tuple[int, ...]
    legs: tuple[Tensor, ...] = ()
    known: Tensor | None = None
    shift: Terms = field(default_factory=list)
    source: Source | None = None
    relation: Relation | None = None
    buffer: str | None = None
    normalized: bool = False
    pending: list[Terms] = field(default_factory=list)
    masked: bool = False
    stochastic: bool = False
    heads: Heads | None = None

    @property
    def inert(self) -> bool:
        """Whether no symmetry can reach this value."""
        free = not self.shift and not self.pending and self.heads is None
        return free and not self.legs and self.source is None

    def moved(self, move: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Value:
        """Apply a movement of data to everything that is laid out like the value."""

        def run(array: Tensor) -> Tensor:
            return compress(on_integers(move, array.expand(self.shape)))

        source = self.source
        if source is not None:
            entries = source.entries
            if entries is None:
                entries = torch.arange(int(torch.tensor(self.shape).prod())).reshape(self.shape)
            source = replace(source, entries=on_integers(move, entries))
        legs = tuple(leg for leg in map(run, self.legs) if not bool((leg == FIXED).all()))
        return Value(shape, legs, shift=[(c, run(i)) for c, i in self.shift], source=source)


def on_integers(move: Callable[[Tensor], Tensor], array: Tensor) -> Tensor:
    """Run a movement of data on whole numbers."""
    try:
        return move(array)
    except (RuntimeError, NotImplementedError):
        # Some movements (reflection padding, interpolation) have no integer kernel; float64 holds labels exactly.
        return move(array.double()).long()


def compress(array: Tensor) -> Tensor:
    """Shrink the axes along which nothing varies to size 1."""
    for axis in range(array.ndim):
        if array.shape[axis] > 1:
            first = array.narrow(axis, 0, 1)
            if array.stride(axis) == 0 or bool((array == first).all()):
                array = first
    return array


def pad_left(array: Tensor, ndim: int) -> Tensor:
    """Add leading axes of size 1."""
    return array.reshape((1,) * (ndim - array.ndim) + tuple(array.shape))


def varies(array: Tensor) -> list[int]:
    """Axes of size above 1."""
    return [k for k, size in enumerate(array.shape) if size > 1]


def without_zeros(labels: Tensor) -> Tensor:
    """Channels that were 0 and no longer are cannot follow any action."""
    return torch.where(labels == ZERO, FIXED, labels)


def known(value: Any) -> Any:
    """Replace values by the tensors that they are known to be."""
    if isinstance(value, Value):
        return value.known
    if isinstance(value, (list, tuple)):
        return type(value)(known(v) for v in value)
    return value


def positions(value: Any) -> Any:
    """Like :func:`known`, for movements of labels, which live on the CPU wherever the model is."""
    found = known(value)
    if isinstance(found, Tensor):
        return found.cpu()
    return type(found)(positions(v) for v in found) if isinstance(found, (list, tuple)) else found


def values_in(item: Any) -> list[Value]:
    """All values in nested lists of arguments."""
    if isinstance(item, Value):
        return [item]
    if isinstance(item, (list, tuple)):
        return [v for part in item for v in values_in(part)]
    if isinstance(item, dict):
        return values_in(list(item.values()))
    return []
