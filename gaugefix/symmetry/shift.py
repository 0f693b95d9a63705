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
from functools import cached_property

import torch
from torch import Tensor

from gaugefix.groups import Translations
from gaugefix.symmetry.absorb_along import AbsorbAlong
from gaugefix.symmetry.base import Part, Symmetry
from gaugefix.symmetry.shift_steps import Absorb, Add, Derive, Solve


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

    @cached_property
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
        wide, t = self._solved(tensors, value)
        for leg in self.legs:
            if isinstance(leg, AbsorbAlong):
                leg.check(wide, t, tensors[leg.parameter].dtype)
        moved: dict[str, Tensor] = {}
        for leg in self.legs:
            parameter = moved.get(leg.parameter, wide[leg.parameter])
            delta = leg.delta(wide, t)
            delta = delta.reshape(parameter.shape) if delta.numel() == parameter.numel() else delta
            moved[leg.parameter] = parameter + delta
        return {name: tensor.to(tensors[name].dtype) for name, tensor in moved.items()}

    def strain(self, tensors: Mapping[str, Tensor], value: Tensor) -> float:
        along = [leg for leg in self.legs if isinstance(leg, AbsorbAlong)]
        if not along:
            return 1.0
        wide, t = self._solved(tensors, value)
        return max(leg.strain(wide, t) for leg in along)

    def _solved(self, tensors: Mapping[str, Tensor], value: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The tensors and t. A weight may be stored in less precision than the shift: both in the wider one."""
        wide = {name: tensors[name].to(torch.promote_types(tensors[name].dtype, value.dtype)) for name in self.reads}
        return wide, self.shifts(wide, value.to(next(iter(wide.values())).device))
