"""Labels: one integer per channel of every parameter, and the constraints that the operations put on them.

A label stands for the action of the gauge group on one channel. Operations never decide anything: they say that
two labels are equal, dual (vector against covector) or multiplied, which actions a label still allows, and which
labels are summed together. ``solve`` reads the groups off in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gaugefix.discovery.grouping import distinct, distinct_pairs

Ints = NDArray[np.int64]

MIX, SCALE, SIGN, PERMUTE, TURN = 1, 2, 4, 8, 16
"""Actions a channel may allow: mixing with others, a positive factor, a change of sign, exchange with others, and
rotation within the plane that rotary positions pair it in."""
NOTHING, POSITIVE, ODD, DIAGONAL = 0, SCALE | PERMUTE, SIGN | PERMUTE, SCALE | SIGN | PERMUTE
COMPLEX, LINEAR = SCALE | SIGN | TURN, 31

FIXED, ZERO = 0, 1
"""Labels of a channel that nothing may act on, and of a channel that is always 0 (compatible with any action)."""


@dataclass(eq=False)
class Heads:
    """Heads of one attention: batch entries of its products, which may change places as a whole.

    Args:
        count: number of heads.
        members: (heads, channels) labels that belong to each head, one array for every factor of a product.
        reason: why they may not change places; empty if they may.
    """

    count: int
    members: list[Ints] = field(default_factory=list)
    reason: str = ""


@dataclass
class Labels:
    """A store of labels and constraints."""

    count: int = 2
    edges: list[tuple[Ints, Ints, int]] = field(default_factory=list)
    allowed: list[tuple[Ints, int]] = field(default_factory=list)
    reasons: list[tuple[Ints, str]] = field(default_factory=list)
    fibres: list[tuple[Ints, Ints]] = field(default_factory=list)
    products: list[tuple[Ints, Ints, Ints]] = field(default_factory=list)
    ties: list[tuple[Ints, Ints]] = field(default_factory=list)
    consumed: list[Ints] = field(default_factory=list)
    planes: list[tuple[Ints, Ints]] = field(default_factory=list)
    centred: list[Ints] = field(default_factory=list)
    gains: list[tuple[Ints, Ints, str]] = field(default_factory=list)
    alike: set[int] = field(default_factory=set)
    heads: list[Heads] = field(default_factory=list)
    _random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def fresh(self, *shape: int) -> Tensor:
        """New labels in the given shape."""
        size = int(np.prod(shape))
        labels = torch.arange(self.count, self.count + size).reshape(shape)
        self.count += size
        return labels

    def equal(self, a: Tensor, b: Tensor) -> None:
        """Both channels transform alike."""
        self._edge(a, b, 1)

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        """Labels of a sum: both summands transform alike; where one of them is always 0, as the other does."""
        self.equal(a, b)
        return torch.where(a == ZERO, b, a)

    def dual(self, a: Tensor, b: Tensor) -> None:
        """One channel transforms as a covector where the other is a vector."""
        self._edge(a, b, -1)
        self.consume(a)

    def tie(self, a: Tensor, b: Tensor) -> None:
        """Both channels may only be exchanged together with their partners."""
        left, right = (x.ravel() for x in np.broadcast_arrays(a.numpy(), b.numpy()))
        self.ties.append((left.copy(), right.copy()))

    def plane(self, a: Tensor, b: Tensor) -> None:
        """Pairs of channels that rotary positions turn: both scale alike, and may turn by the same angle."""
        pairs = np.stack(distinct_pairs(*(x.ravel() for x in np.broadcast_arrays(a.numpy(), b.numpy()))))
        pairs = pairs[:, (pairs > ZERO).any(0)]
        self.planes.append((pairs[0], pairs[1]))

    def centre(self, labels: Tensor) -> None:
        """A norm subtracts the mean over these channels: only what keeps the ones commutes with it."""
        self.centred.append(distinct(labels.numpy()))

    def gain(self, out: Tensor, normalized: Tensor, name: str) -> None:
        """``out`` is ``normalized`` times the gain ``name``: it moves by γRγ⁻¹ where the other moves by R."""
        left, right = (x.ravel() for x in np.broadcast_arrays(out.numpy(), normalized.numpy()))
        self.gains.append((left.copy(), right.copy(), name))

    def consume(self, labels: Tensor) -> None:
        """Somebody reads these channels (others belong to entries that are never used)."""
        self.consumed.append(distinct(labels.numpy()))

    def restrict(self, labels: Tensor, actions: int, reason: str) -> None:
        """Allow no more than ``actions`` on these channels."""
        found = distinct(labels.numpy())
        found = found[found > ZERO]
        if found.size:
            self.allowed.append((found, actions))
            if not actions & (MIX | SCALE | SIGN):
                self.reasons.append((found, reason))

    def fibre(self, labels: Tensor, axes: list[int], alike: bool = False) -> None:
        """Channels along ``axes`` meet in one sum: only such channels can mix or be exchanged.

        Every sum gets a random hash that is added to the key of all its channels; channels with equal keys in the
        end occur in exactly the same sums (up to a chance of 2⁻⁶²). Sums that are ``alike`` may be exchanged as wholes,
        as those of different heads.
        """
        rest = labels.movedim(axes, list(range(labels.ndim - len(axes), labels.ndim)))
        flat = rest.reshape(int(np.prod(rest.shape[: labels.ndim - len(axes)], dtype=np.int64)), -1).numpy()
        hashes = self._random.integers(1, 2**62, size=(flat.shape[0], 1), dtype=np.int64)
        if alike:
            self.alike.add(len(self.fibres))
        self.fibres.append((flat.ravel(), np.broadcast_to(hashes, flat.shape).ravel()))

    def separate(self, parts: list[Tensor], moved: Tensor, move: Callable[[list[Tensor]], Tensor]) -> None:
        """Keep channels apart that a movement of data treats differently.

        Mixing or exchanging channels pairs their entries in the order in which they are stored: the k-th entry of
        one channel with the k-th of another. A channel that is cut out, or whose entries come in another order than
        those of its neighbours, no longer pairs with them.

        Args:
            parts: label arrays before the movement, in their full shapes.
            moved: their labels after it.
            move: the movement.
        """
        before = np.concatenate([part.numpy().ravel() for part in parts])
        rank = torch.from_numpy(_rank(before))
        cuts = np.cumsum([0, *(part.numel() for part in parts)])
        ranks = [rank[a:b].reshape(part.shape) for a, b, part in zip(cuts, cuts[1:], parts, strict=False)]
        after, source = moved.numpy().ravel(), move(ranks).numpy().ravel()
        present, which = np.unique(after, return_inverse=True)
        pattern = np.zeros(len(present), np.int64)
        np.add.at(pattern, which, _scramble(source * np.int64(1_000_003) + _rank(after)))
        lost = np.setdiff1d(before, present)
        channels = present > ZERO
        if (lost > ZERO).any() or len(np.unique(pattern[channels])) > 1:
            salt = self._random.integers(1, 2**62, dtype=np.int64)
            self.fibres.append((present[channels], _scramble(pattern[channels] ^ salt)))

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """Labels of the product of two channels: scales multiply, nothing mixes."""
        left, right = np.broadcast_arrays(a.numpy(), b.numpy())
        codes, inverse = np.unique(left.ravel() << 32 | right.ravel(), return_inverse=True)
        pairs = np.stack([codes >> 32, codes & 0xFFFFFFFF])
        result = self.fresh(pairs.shape[1]).numpy().copy()
        result[(pairs == ZERO).any(0)] = ZERO
        keep = result != ZERO
        self.products.append((result[keep], pairs[0][keep], pairs[1][keep]))
        for factor, other in (pairs, pairs[::-1]):  # a channel that keeps its place keeps its partner there
            held = other[(factor == FIXED) & (other > ZERO)]
            self.fibres.append((held, self._random.integers(1, 2**62, size=len(held), dtype=np.int64)))
        out = torch.from_numpy(result)
        for labels in (a, b, out):
            self.restrict(labels, DIAGONAL, "multiplied elementwise")
        return out[torch.from_numpy(inverse.reshape(-1))].reshape(left.shape)

    def _edge(self, a: Tensor, b: Tensor, sign: int) -> None:
        left, right = (x.ravel() for x in np.broadcast_arrays(*_without_repeats(a, b)))
        keep = (left != ZERO) & (right != ZERO) & ((left != right) | (sign < 0))
        if keep.any():
            self.edges.append((*distinct_pairs(left[keep], right[keep]), sign))


def _rank(labels: Ints) -> Ints:
    """How many earlier entries have the same label, for every entry."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    lengths = np.diff(np.append(starts, len(ordered)))
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - np.repeat(starts, lengths)
    return rank


def _scramble(values: Ints) -> Ints:
    """Map whole numbers to well-mixed 62-bit ones (the finaliser of splitmix64)."""
    x = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray((x ^ (x >> np.uint64(31))) >> np.uint64(2), np.int64)


def _without_repeats(*arrays: Tensor) -> list[Ints]:
    """Drop the repetitions along axes that are expanded (stride 0) in all arrays."""
    ndim = max(array.ndim for array in arrays)
    padded = [array.reshape((1,) * (ndim - array.ndim) + tuple(array.shape)) for array in arrays]
    for axis in range(ndim):
        if all(array.shape[axis] == 1 or array.stride(axis) == 0 for array in padded):
            padded = [array.narrow(axis, 0, 1) for array in padded]
    return [array.numpy() for array in padded]
