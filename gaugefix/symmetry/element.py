"""An element of the gauge group: a sequence of steps, each an element of one symmetry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Element:
    """Steps ``(symmetry name, group element)``, applied from left to right.

    A sequence rather than one value per symmetry, because factors need not commute (a rotation, then a shift).
    """

    steps: tuple[tuple[str, Tensor], ...]

    def then(self, other: Element) -> Element:
        """Return the element that applies ``self`` first and ``other`` afterwards."""
        return Element(self.steps + other.steps)

    @property
    def values(self) -> Mapping[str, Tensor]:
        """Group element by symmetry name (the last one where a name occurs twice)."""
        return dict(self.steps)

    def state_dict(self) -> list[tuple[str, Tensor]]:
        """Plain names and tensors, loadable with ``torch.load(weights_only=True)``."""
        return [(name, value.detach().clone()) for name, value in self.steps]

    @classmethod
    def from_state_dict(cls, state: list[tuple[str, Tensor]]) -> Element:
        """Inverse of :meth:`state_dict`."""
        return cls(tuple((name, torch.as_tensor(value)) for name, value in state))
