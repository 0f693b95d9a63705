"""Labels: one integer per channel of every parameter, and the constraints that the operations put on them.

A label stands for the action of the gauge group on one channel. Operations never decide anything: they say that
two labels are equal, dual (vector against covector) or multiplied, which actions a label still allows, and which
labels are summed together. ``solve`` reads the groups off in the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]

MIX, SCALE, SIGN, PERMUTE = 1, 2, 4, 8
"""Actions a channel may allow: mixing with others, a positive factor, a change of sign, exchange with others."""
NOTHING, POSITIVE, ODD, DIAGONAL, LINEAR = 0, SCALE | PERMUTE, SIGN | PERMUTE, SCALE | SIGN | PERMUTE, 15

FIXED, ZERO = 0, 1
"""Labels of a channel that nothing may act on, and of a channel that is always 0 (compatible with any action)."""


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
        a, b = torch.broadcast_tensors(a, b)
        return torch.where(a == ZERO, b, a)

    def dual(self, a: Tensor, b: Tensor) -> None:
        """One channel transforms as a covector where the other is a vector."""
        self._edge(a, b, -1)
        self.consume(a)

    def tie(self, a: Tensor, b: Tensor) -> None:
        """Both channels may only be exchanged together with their partners."""
        left, right = (x.ravel() for x in np.broadcast_arrays(a.numpy(), b.numpy()))
        self.ties.append((left.copy(), right.copy()))

    def consume(self, labels: Tensor) -> None:
        """Somebody reads these channels (others belong to entries that are never used)."""
        self.consumed.append(np.unique(labels.numpy()))

    def restrict(self, labels: Tensor, actions: int, reason: str) -> None:
        """Allow no more than ``actions`` on these channels."""
        found = np.unique(labels.numpy())
        found = found[found > ZERO]
        if found.size:
            self.allowed.append((found, actions))
            if not actions & (MIX | SCALE | SIGN):
                self.reasons.append((found, reason))

    def fibre(self, labels: Tensor, axes: list[int]) -> None:
        """Channels along ``axes`` meet in one sum: only such channels can mix or be exchanged.

        Every sum gets a random hash that is added to the key of all its channels; channels with equal keys in the
        end occur in exactly the same sums (up to a chance of 2⁻⁶²).
        """
        rest = labels.movedim(axes, list(range(labels.ndim - len(axes), labels.ndim)))
        flat = rest.reshape(int(np.prod(rest.shape[: labels.ndim - len(axes)], dtype=np.int64)), -1).numpy()
        hashes = self._random.integers(1, 2**62, size=(flat.shape[0], 1), dtype=np.int64)
        self.fibres.append((flat.ravel(), np.broadcast_to(hashes, flat.shape).ravel()))

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """Labels of the product of two channels: scales multiply, nothing mixes."""
        left, right = np.broadcast_arrays(a.numpy(), b.numpy())
        pairs, inverse = np.unique(np.stack([left.ravel(), right.ravel()]), axis=1, return_inverse=True)
        result = self.fresh(pairs.shape[1]).numpy().copy()
        result[(pairs == ZERO).any(0)] = ZERO
        keep = result != ZERO
        self.products.append((result[keep], pairs[0][keep], pairs[1][keep]))
        out = torch.from_numpy(result)
        for labels in (a, b, out):
            self.restrict(labels, DIAGONAL, "multiplied elementwise")
        return out[torch.from_numpy(inverse.reshape(-1))].reshape(left.shape)

    def _edge(self, a: Tensor, b: Tensor, sign: int) -> None:
        left, right = (x.ravel() for x in np.broadcast_arrays(a.numpy(), b.numpy()))
        keep = (left != ZERO) & (right != ZERO) & ((left != right) | (sign < 0))
        if keep.any():
            pairs = np.unique(np.stack([left[keep], right[keep]]), axis=1)
            self.edges.append((pairs[0], pairs[1], sign))
