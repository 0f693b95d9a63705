"""Plain shifts: every entry of a parameter takes one coordinate, times a constant.

So it is where two biases are added: one may give to the other. JᵀJ is diagonal then, and the least norm a division;
no weight is read, and no matrix is built.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gaugefix.symmetry import Add, Form, ShiftSymmetry, Solve

_COMPILED: weakref.WeakKeyDictionary[ShiftSymmetry, dict[frozenset[str], PlainShift | None]] = (
    weakref.WeakKeyDictionary()
)


@dataclass(frozen=True, eq=False)
class Taker:
    """A parameter that takes coordinates: θ_e + factor_e · v[index_e].

    Args:
        parameter: its name.
        factor: float64, broadcastable to the parameter; 0 where it takes nothing.
        index: int64, in the shape of ``factor``; 0 where it takes nothing.
    """

    parameter: str
    factor: Tensor
    index: Tensor


@dataclass(frozen=True, eq=False)
class PlainShift:
    """The least norm of a plain shift in closed form."""

    n: int
    takers: tuple[Taker, ...]

    def least_norm(
        self, tensors: Mapping[str, Tensor], reference: Mapping[str, Tensor] | None = None, scale: float = 0.0
    ) -> tuple[Tensor, float]:
        """Return v that minimises Σ ‖θ + Jv − reference‖² and the relative size of the step, ‖Jv‖/‖θ‖.

        Args:
            tensors: float64 parameters by name.
            reference: what to come nearest to; zero by default.
            scale: smallest ‖θ‖ to compare with.
        """
        some = tensors[self.takers[0].parameter]
        pull, stiffness, size = some.new_zeros(self.n), some.new_zeros(self.n), some.new_zeros(())
        for taker in self.takers:
            theta = tensors[taker.parameter]
            factor, index = taker.factor.to(theta.device), taker.index.to(theta.device).reshape(-1)
            apart = theta if reference is None else theta - reference[taker.parameter]
            share = (apart.sum_to_size(factor.shape) * factor).reshape(-1)
            pull.index_add_(0, index, share.to(pull.device))
            repeats = theta.numel() / factor.numel()
            stiffness.index_add_(0, index, repeats * factor.square().reshape(-1).to(pull.device))
            size += theta.square().sum().to(pull.device)
        v = torch.where(stiffness > 0.0, -pull / stiffness, 0.0)
        step, norm = torch.stack([(stiffness * v.square()).sum(), size]).sqrt().tolist()
        norm = max(norm, scale)
        return v, step / norm if norm > 0 else step


def plain_shift(
    symmetry: ShiftSymmetry, counted: frozenset[str], shapes: Mapping[str, torch.Size]
) -> PlainShift | None:
    """Return the shift as a plain one (cached), or ``None`` if it is not.

    Args:
        symmetry: any shift.
        counted: parameters that count in the norm.
        shapes: shapes of these parameters.
    """
    known = _COMPILED.setdefault(symmetry, {})
    if counted not in known:
        known[counted] = _compiled(symmetry, counted, shapes)
    return known[counted]


def _compiled(symmetry: ShiftSymmetry, counted: frozenset[str], shapes: Mapping[str, torch.Size]) -> PlainShift | None:
    n = symmetry.acting.n
    # t as it follows from v: factor · v[root]; the last entry, of index −1, is zero.
    root, factor = np.arange(symmetry.size + 1), np.ones(symmetry.size + 1)
    factor[n:] = 0.0
    for step in symmetry.steps:
        resolved = _resolved(step.form, root, factor) if isinstance(step, Solve) else None
        if resolved is None:
            return None
        factor[step.target], root[step.target] = resolved
    takers: list[Taker] = []
    for leg in symmetry.legs:
        if leg.parameter not in counted:
            continue
        resolved = _resolved(leg.form, root, factor) if isinstance(leg, Add) else None
        if resolved is None or any(taker.parameter == leg.parameter for taker in takers):
            return None
        shape = shapes[leg.parameter]
        laid_out = [np.reshape(a, shape) if a.size == shape.numel() else a for a in resolved]
        takers.append(Taker(leg.parameter, torch.from_numpy(laid_out[0]), torch.from_numpy(laid_out[1])))
    return PlainShift(n, tuple(takers)) if takers else None


def _resolved(form: Form, root: np.ndarray, factor: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The form as one coordinate per entry: its factors and indices; ``None`` where an entry is a sum of two."""
    total, where = np.zeros(1), np.zeros(1, dtype=np.int64)
    for coefficient, index in form.terms:
        new = coefficient * factor[index]
        if ((total != 0.0) & (new != 0.0)).any():
            return None
        where = np.where(new != 0.0, root[index], where)
        total = total + new
    return total, where
