"""Centered averages: squares from which an optimizer takes the square of a mean.

RMSprop(centered=True) divides by √(E[g²] − E[g]²). A mixing element moves E[g] exactly and E[g²] by elementwise
squares, each for itself, so that the difference could become negative. It is the variance that moves by elementwise
squares:

    E[g²]' = S (E[g²] − E[g]²) + (E[g]')²,      S the elementwise square of the matrix that moves gradients,

which is never negative, and exact where entries are uncorrelated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from gaugefix.symmetry import SQUARED_GRADIENT
from gaugefix.transport.attachments import Attached

CENTERED = {"square_avg": "grad_avg"}
"""Entry with an average of squares → entry with the mean whose square is taken from it."""


@dataclass(frozen=True, eq=False)
class Centered:
    """An average of squares, its mean, and the square of the mean as it was, which moves along as squares do."""

    squares: Tensor
    mean: Tensor
    before: Attached

    @torch.no_grad()
    def mend_(self) -> None:
        """Once all have moved: E[g²] += (E[g]')² − S E[g]², at least (E[g]')²."""
        now = self.mean.square()
        self.squares.add_(now - self.before.tensor).clamp_(min=now)


def centered(along: Iterable[Attached]) -> list[Centered]:
    """Find the centered averages among what is attached to parameters."""
    items = list(along)
    by_entry = {(item.parameter, item.kind): item for item in items}
    found = []
    for item in items:
        if not (isinstance(item.kind, tuple) and item.kind[-1] in CENTERED):
            continue
        mean = by_entry.get((item.parameter, (*item.kind[:-1], CENTERED[item.kind[-1]])))
        if mean is not None:
            square = Attached(item.parameter, mean.tensor.square(), SQUARED_GRADIENT, (*item.kind, "mean squared"))
            found.append(Centered(item.tensor, mean.tensor, square))
    return found
