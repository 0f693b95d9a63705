"""How shifts follow from one another, and which parameters take them: the pieces of a :class:`ShiftSymmetry`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gaugefix.errors import SymmetryError
from gaugefix.symmetry.leg import Index, frozen_index


@dataclass(frozen=True, eq=False)
class Form:
    """A linear form in the shifts, one per entry of an array: Σ_k coefficient_k · t[index_k] (index −1: nothing)."""

    terms: tuple[tuple[float, Index], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", tuple((float(c), frozen_index(i)) for c, i in self.terms))

    def value(self, t: Tensor) -> Tensor:
        """Evaluate on ``t`` (its last entry must be 0: the target of index −1)."""
        total: Tensor | None = None
        for coefficient, index in self.terms:
            term = coefficient * t[torch.from_numpy(index.copy()).to(t.device)]
            total = term if total is None else total + term
        if total is None:
            raise SymmetryError("Expected at least one term for a shift form, got none. Leave the form out.")
        return total


@dataclass(frozen=True, eq=False)
class ChannelMap:
    """The linear map between channels that a weight is for constant inputs: taps of a convolution are summed.

    Args:
        weight: parameter name.
        entries: flat positions of the weight's entries within the parameter, in the shape that the operation sees;
            ``None`` if the operation reads the parameter as it is.
        transposed: whether the first axis is the input (matmul, transposed convolution) rather than the output.
        groups: of a convolution.
    """

    weight: str
    entries: Index | None = None
    transposed: bool = False
    groups: int = 1

    def matrix(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return (groups, out, in)."""
        weight = tensors[self.weight]
        if self.entries is not None:
            weight = weight.reshape(-1)[torch.from_numpy(self.entries.copy()).to(weight.device)]
        weight = weight.flatten(2).sum(2) if weight.ndim > 2 else weight
        weight = weight.reshape(self.groups, -1, weight.shape[1])
        return weight.mT if self.transposed else weight

    def apply(self, tensors: Mapping[str, Tensor], shift: Tensor) -> Tensor:
        """Return W·shift, (in,) → (out,)."""
        return (self.matrix(tensors) @ shift.reshape(self.groups, -1, 1)).reshape(-1)


@dataclass(frozen=True, eq=False)
class Derive:
    """t[target] = W · source(t): a linear map without a bias of its own."""

    target: Index
    map: ChannelMap
    source: Form

    def update(self, tensors: Mapping[str, Tensor], t: Tensor) -> Tensor:
        """Return the new entries of t."""
        return self.map.apply(tensors, self.source.value(t))


@dataclass(frozen=True, eq=False)
class Solve:
    """t[target] = form(t): a solved equation."""

    target: Index
    form: Form

    def update(self, tensors: Mapping[str, Tensor], t: Tensor) -> Tensor:
        """Return the new entries of t."""
        return self.form.value(t)


@dataclass(frozen=True, eq=False)
class Add:
    """parameter += form(t), broadcast over the parameter (rows of an embedding)."""

    parameter: str
    form: Form

    def delta(self, tensors: Mapping[str, Tensor], t: Tensor) -> Tensor:
        """Return the change of the parameter, or of as many of its axes as the form has."""
        return self.form.value(t)


@dataclass(frozen=True, eq=False)
class Absorb:
    """bias += t[target] − W · source(t): a bias absorbs whatever its layer must not show."""

    parameter: str
    map: ChannelMap
    source: Form
    target: Form | None

    def delta(self, tensors: Mapping[str, Tensor], t: Tensor) -> Tensor:
        """Return the change of the bias."""
        change = -self.map.apply(tensors, self.source.value(t)) if self.source.terms else t.new_zeros(())
        return change if self.target is None else change + self.target.value(t)
