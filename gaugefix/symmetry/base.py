"""What every symmetry is: a group, the parameters that it moves, and how to move them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from gaugefix.groups import Group
from gaugefix.symmetry.exactness import Exactness

PARAMETER, GRADIENT, SQUARED_GRADIENT = 1, -1, -2
"""Laws of transport: how a tensor attached to a parameter moves (itself, a gradient, a squared gradient)."""


@dataclass(frozen=True)
class Part:
    """One row of a symmetry's description: a parameter and what happens to it."""

    parameter: str
    role: str


@dataclass(frozen=True, eq=False)
class Symmetry(ABC):
    """One factor of the gauge group: frozen data about names.

    Args:
        name: unique within a :class:`GaugeGroup`; used in logs and errors.
        exactness: when it holds.
    """

    name: str
    exactness: Exactness

    @property
    @abstractmethod
    def group(self) -> Group:
        """The group that acts."""

    @property
    @abstractmethod
    def parts(self) -> tuple[Part, ...]:
        """The parameters that move, and how, for tables."""

    @property
    def dimension(self) -> int:
        """Continuous redundant dimensions that this symmetry adds (overlaps with others left out)."""
        return self.group.dimension

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters and buffers that move, each once."""
        return tuple(dict.fromkeys(part.parameter for part in self.parts))

    @property
    def reads(self) -> tuple[str, ...]:
        """Names needed to move the parameters: those that move, and those the motion depends on."""
        return self.parameters

    @abstractmethod
    def act(self, tensors: Mapping[str, Tensor], value: Tensor) -> dict[str, Tensor]:
        """Return the moved parameters (out of place, differentiable), from the tensors named by :attr:`reads`."""
