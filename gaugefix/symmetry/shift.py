"""Shifts: constants that walk through linear maps and meet a bias at the end.

A value v of the network may move by a constant c (the same for every input) if whoever reads it can absorb c:
z = W v + b is unchanged in the form z + c_z when b moves by c_z − W c. The unknown shifts of all values form one
vector t; its first entries are free (the coordinates of the translation group), the others follow from them by
``Derive`` (a linear map without a bias passes the shift on) and ``Solve`` (an equation of shifts).
The idea is that of an affine gauge transformation x → x + c(t) of a neural ODE, arXiv 2402.02362, Section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gaugefix.errors import SymmetryError
from gaugefix.groups import Translations
from gaugefix.symmetry.base import Part, Symmetry
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


@dataclass(frozen=True, eq=False)
class Absorb:
    """bias += t[target] − W · source(t): a bias absorbs whatever its layer must not show."""

    parameter: str
    map: ChannelMap
    source: Form
    target: Form | None


@dataclass(frozen=True, eq=False)
class AbsorbAlong:
    """W += (t[target] − W · source(t)) kᵀ/(κ + k · source(t)) for an input with k·x = κ, k = 1/γ, κ = Σβ/γ.

    A map without a bias that reads a layer norm has one all the same, as long as κ is not zero.
    """

    map: ChannelMap
    source: Form
    target: Form | None
    gain: str | None
    shift: str

    @property
    def parameter(self) -> str:
        """The weight."""
        return self.map.weight

    def delta(self, tensors: Mapping[str, Tensor], t: Tensor) -> Tensor:
        """Return the change of the weight.

        Raises:
            SymmetryError: if κ is zero, before or after the shift, or if a gain is.
        """
        shift = tensors[self.shift].reshape(-1)
        k = torch.ones_like(shift) if self.gain is None else tensors[self.gain].reshape(-1).reciprocal()
        if not bool(k.detach().isfinite().all()):
            raise SymmetryError(
                f"Expected gains other than 0 in '{self.gain}', got {int((~k.isfinite()).sum())} zeros. There "
                f"'{self.parameter}' has no constant that could stand in for its missing bias: leave the shift out "
                "with gauge.select."
            )
        moved = self.source.value(t) if self.source.terms else torch.zeros_like(shift)
        before, after = k @ shift, k @ (shift + moved)
        if bool((before.detach() == 0) | (after.detach() == 0)):
            raise SymmetryError(
                f"Expected Σβ/γ other than 0 for the norm of '{self.shift}', got 0. There '{self.parameter}' has no "
                "constant that could stand in for its missing bias: leave the shift out with gauge.select."
            )
        out = -self.map.apply(tensors, moved) if self.source.terms else t.new_zeros(())
        out = out if self.target is None else out + self.target.value(t)
        columns = k / after
        return columns[:, None] * out if self.map.transposed else out[:, None] * columns


@dataclass(frozen=True, eq=False)
class ShiftSymmetry(Symmetry):
    """A family of shifts, parametrised by the free entries of t (the first ``acting.n`` of ``size``)."""

    acting: Translations = field(kw_only=True)
    size: int = field(kw_only=True)
    steps: tuple[Derive | Solve, ...] = field(kw_only=True)
    legs: tuple[Add | Absorb | AbsorbAlong, ...] = field(kw_only=True)
    overlap: int = field(default=0, kw_only=True)
    exact_part: tuple[Symmetry, ...] = field(default=(), kw_only=True)

    @property
    def group(self) -> Translations:
        return self.acting

    @property
    def dimension(self) -> int:
        return self.acting.dimension - self.overlap

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(
            Part(leg.parameter, "shift" if isinstance(leg, Add) else f"absorbs {leg.map.weight}·shift")
            for leg in self.legs
        )

    @property
    def conditional(self) -> bool:
        return any(isinstance(leg, AbsorbAlong) for leg in self.legs)

    @property
    def reads(self) -> tuple[str, ...]:
        maps = [leg.map.weight for leg in self.legs if isinstance(leg, Absorb)]
        for leg in self.legs:
            if isinstance(leg, AbsorbAlong):
                maps += [name for name in (leg.gain, leg.shift) if name is not None]
        maps += [step.map.weight for step in self.steps if isinstance(step, Derive)]
        return tuple(dict.fromkeys((*self.parameters, *maps)))

    def shifts(self, tensors: Mapping[str, Tensor], value: Tensor) -> Tensor:
        """Return the whole vector t (with a last entry 0) for the free coordinates ``value``."""
        t = torch.cat([value, value.new_zeros(self.size + 1 - self.acting.n)])
        for step in self.steps:
            update = step.update(tensors, t)
            t = t.index_copy(0, torch.from_numpy(step.target.copy()).to(t.device), update.to(t.dtype))
        return t

    def act(self, tensors: Mapping[str, Tensor], value: Tensor) -> dict[str, Tensor]:
        # A weight may be stored in less precision than the shift is computed in: solve in the wider one.
        wide = {name: tensors[name].to(torch.promote_types(tensors[name].dtype, value.dtype)) for name in self.reads}
        t = self.shifts(wide, value.to(next(iter(wide.values())).device))
        moved: dict[str, Tensor] = {}
        for leg in self.legs:
            parameter = moved.get(leg.parameter, wide[leg.parameter])
            if isinstance(leg, Add):
                delta = leg.form.value(t)
            elif isinstance(leg, AbsorbAlong):
                delta = leg.delta(wide, t)
            else:
                delta = -leg.map.apply(wide, leg.source.value(t)) if leg.source.terms else t.new_zeros(())
                delta = delta if leg.target is None else delta + leg.target.value(t)
            delta = delta.reshape(parameter.shape) if delta.numel() == parameter.numel() else delta
            moved[leg.parameter] = parameter + delta
        return {name: tensor.to(tensors[name].dtype) for name, tensor in moved.items()}
