"""What every symmetry is: a group, the parameters that it moves, and how to move them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gaugefix.groups import Group
from gaugefix.symmetry.exactness import Exactness

PARAMETER, GRADIENT, SQUARED_GRADIENT, RATIO = 1, -1, -2, 10
"""Laws of transport: how a tensor attached to a parameter moves (itself, a gradient, a squared gradient). RATIO: a
gradient over its size, |g| of which drops out: it moves by the orthogonal factor of g (signs of a scaling, a
permutation, a rotation).
"""


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
    def conditional(self) -> bool:
        """Whether it holds only where some parameters are not zero: ill-conditioned near there, so no default."""
        return False

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters and buffers that move, each once."""
        return tuple(dict.fromkeys(part.parameter for part in self.parts))

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Names needed to move the parameters: those that move, and those the motion depends on."""
        return self.parameters

    @abstractmethod
    def act(self, tensors: Mapping[str, Tensor], value: Tensor) -> dict[str, Tensor]:
        """Return the moved parameters (out of place, differentiable), from the tensors named by :attr:`reads`."""

    def strain(self, tensors: Mapping[str, Tensor], value: Tensor) -> float:
        """Return by which factor ``act`` may amplify rounding errors: 1, but for conditional symmetries near a zero."""
        return 1.0

    def transport(
        self, tensors: Mapping[str, Tensor], value: Tensor, law: int, at: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Move what is attached to parameters through one step θ' = F(θ): the hook of ``act_``.

        A covector moves by (DF)⁻ᵀ. This one pulls gradients back through the inverse at θ', all at once, for a step may
        mix parameters. Second moments would need correlations between entries; they stay, as do ratios. A subclass
        that knows its matrix on every entry moves them by the elementwise square of it.

        Args:
            tensors: attached tensors of one kind (all gradients, say), by the name of their parameter, each in its
                shape; those of parameters outside :attr:`reads` are left out of the result.
            value: the group element of the step.
            law: GRADIENT, SQUARED_GRADIENT or RATIO.
            at: the parameters named by :attr:`reads` *after* the step, float32 or wider.

        Returns:
            The tensors that moved, in the dtypes of ``tensors``.
        """
        names = [name for name in tensors if name in self.reads]
        if law != GRADIENT or not names:
            return {}
        here = tuple(at[name].detach() for name in names)

        def undo(*given: Tensor) -> tuple[Tensor, ...]:
            state = {**at, **dict(zip(names, given, strict=True))}
            back = self.act(state, self.group.inverse(value))
            return tuple(back.get(name, state[name]) for name in names)

        with torch.enable_grad():
            pull = torch.func.vjp(undo, *here)[1]
        pulled = pull(tuple(tensors[name].to(h.dtype) for name, h in zip(names, here, strict=True)))
        return {name: new.to(tensors[name].dtype) for name, new in zip(names, pulled, strict=True)}
