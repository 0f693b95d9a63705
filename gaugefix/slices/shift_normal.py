"""The normal equations of a shift, assembled from its legs: what makes conjugate gradients take one step, not hundreds.

The parameters are affine in the coordinates v of a shift, θ(v) = θ + Jv. A bias that receives some coordinates as they
are has a J of ones, of which JᵀJ is a count; a bias that absorbs W·shift has a J of −W. An embedding receives the same
shift in all rows, which count and are not written out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from gaugefix.symmetry import Absorb, AbsorbAlong, Add, Derive, Form, ShiftSymmetry

_LARGEST = 4096
"""Coordinates up to which JᵀJ is factored."""
_STALE = 4
"""Steps of conjugate gradients after which the factors are made again."""
_SMALL = 64
"""Coordinates up to which JᵀJ is made anew at every point, which costs less than one differentiation."""


class ShiftNormal:
    """JᵀJ of one shift at the weights of some moment, factored: a preconditioner for later ones.

    Args:
        symmetry: the shift, without legs along a norm (``AbsorbAlong``).
        counted: parameters that count in the norm.
    """

    def __init__(self, symmetry: ShiftSymmetry, counted: frozenset[str]) -> None:
        self.symmetry = symmetry
        self.counted = counted
        self.possible = symmetry.acting.n <= _LARGEST and not symmetry.conditional
        self._steps = _STALE + 1
        self._low: Tensor | None = None
        self._inverse: Tensor | None = None

    def prepare(self, tensors: Mapping[str, Tensor]) -> None:
        """Factor JᵀJ at these tensors, if the factors that are there did badly."""
        if self._steps <= _STALE:
            return
        self._factor(shift_gram(self.symmetry, tensors, self.counted))

    @property
    def small(self) -> bool:
        """Whether :meth:`least_norm` is the way to solve."""
        return self.possible and self.symmetry.acting.n <= _SMALL

    def least_norm(self, tensors: Mapping[str, Tensor], goals: Mapping[str, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Return v = −(JᵀJ)⁻¹Jᵀ(θ − goal), (n,), and ‖Jv‖, at these tensors, from J itself."""
        gram, pull = shift_system(self.symmetry, tensors, self.counted, goals)
        self._factor(gram)
        v = self.solve(-pull)
        return v, (v @ gram @ v).clamp_min(0.0).sqrt()

    def _factor(self, gram: Tensor) -> None:
        low, info = torch.linalg.cholesky_ex(gram)
        diagonal = low.diagonal()
        self._low = self._inverse = None
        if int(info) == 0 and float(diagonal.min()) > 1e-6 * float(diagonal.max()):
            self._low = low
            return
        values, vectors = torch.linalg.eigh(gram)  # directions that move nothing stay at 0
        inverse = torch.where(values > 1e-14 * values[-1], values.reciprocal(), 0.0)
        self._inverse = (vectors * inverse) @ vectors.mT

    def solve(self, right: Tensor) -> Tensor:
        """Return (JᵀJ)⁻¹·right with the factors that are there, (n,)."""
        if self._low is not None:
            return torch.cholesky_solve(right[:, None], self._low)[:, 0]
        assert self._inverse is not None
        return self._inverse @ right

    def took(self, steps: int) -> None:
        """Note how many steps the factors led to."""
        self._steps = steps


def shift_gram(symmetry: ShiftSymmetry, tensors: Mapping[str, Tensor], counted: frozenset[str]) -> Tensor:
    """Return JᵀJ over the ``counted`` parameters, (n, n), float64; see :func:`shift_system`."""
    return shift_system(symmetry, tensors, counted)[0]


def shift_system(
    symmetry: ShiftSymmetry,
    tensors: Mapping[str, Tensor],
    counted: frozenset[str],
    goals: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return JᵀJ, (n, n), and Jᵀ(θ − goal), (n,), over the ``counted`` parameters, float64.

    Args:
        symmetry: a shift whose legs are ``Add`` and ``Absorb``.
        tensors: float64 parameters by name, at least those that it reads.
        counted: names of parameters.
        goals: by name, zero by default.
    """
    n = symmetry.acting.n
    some = next(iter(tensors.values()))
    gram, pull = some.new_zeros(n, n), some.new_zeros(n)
    walk = _walk(symmetry, tensors)
    for name in dict.fromkeys(leg.parameter for leg in symmetry.legs):
        if name not in counted:
            continue
        legs = [leg for leg in symmetry.legs if leg.parameter == name and not isinstance(leg, AbsorbAlong)]
        theta = tensors[name]
        apart = (theta if goals is None else theta - goals[name]).to(gram.device)
        if len(legs) == 1 and isinstance(legs[0], Add) and _one_each(legs[0].form, n):
            coefficient, index = legs[0].form.terms[0]
            where = torch.from_numpy(index.reshape(-1).copy()).to(gram.device)
            taken = where >= 0
            repeats = theta.numel() / index.size
            gram.diagonal().add_(coefficient**2 * repeats * torch.bincount(where[taken], minlength=n).to(gram))
            pull.index_add_(0, where[taken], coefficient * _onto(apart, index.shape)[taken])
            continue
        columns = sum((_columns(leg, tensors, walk, theta.shape) for leg in legs), gram.new_zeros(()))
        flat = columns.reshape(-1, n)
        there = flat.any(0).nonzero()[:, 0]
        part = flat if len(there) == n else flat[:, there]
        block = theta.numel() / len(flat) * (part.mT @ part)
        pull[there] += part.mT @ _onto(apart, columns.shape[:-1])
        if len(there) == n:
            gram += block
        else:
            gram[there[:, None], there] += block
    return gram, pull


def _onto(apart: Tensor, shape: Sequence[int]) -> Tensor:
    """Sum what receives the same shift; flat."""
    return (apart if apart.numel() == prod(shape) else apart.sum_to_size(*shape)).reshape(-1)


def _one_each(form: Form, n: int) -> bool:
    return len(form.terms) == 1 and bool((form.terms[0][1] < n).all())


def _walk(symmetry: ShiftSymmetry, tensors: Mapping[str, Tensor]) -> Tensor:
    """All shifts as they follow from the coordinates, (size + 1, n); the last row, of index −1, is zero."""
    n = symmetry.acting.n
    some = next(iter(tensors.values()))
    walk = some.new_zeros(symmetry.size + 1, n)
    walk[:n] = torch.eye(n, dtype=walk.dtype, device=walk.device)
    for step in symmetry.steps:
        where = torch.from_numpy(step.target.copy()).to(walk.device)
        if isinstance(step, Derive):
            walk[where] = _through(step.map.matrix(tensors), _rows(step.source, walk))
        else:
            walk[where] = _rows(step.form, walk)
    return walk


def _columns(leg: Add | Absorb, tensors: Mapping[str, Tensor], walk: Tensor, shape: torch.Size) -> Tensor:
    """J of one leg, (entries that differ, n), with as many axes in front as the parameter has or fewer."""
    if isinstance(leg, Add):
        rows = _rows(leg.form, walk)
    else:
        rows = -_through(leg.map.matrix(tensors), _rows(leg.source, walk)) if leg.source.terms else walk[-1:]
        rows = rows if leg.target is None else rows + _rows(leg.target, walk)
    entries = rows.shape[:-1].numel()
    return rows.reshape(*shape, -1) if entries == shape.numel() else rows


def _rows(form: Form, walk: Tensor) -> Tensor:
    return sum(
        (c * walk[torch.from_numpy(index.copy()).to(walk.device)] for c, index in form.terms), walk.new_zeros(())
    )


def _through(matrix: Tensor, rows: Tensor) -> Tensor:
    """W·shift for every coordinate: (groups, out, in) and (in, n) → (out, n)."""
    groups, n = matrix.shape[0], rows.shape[-1]
    return (matrix @ rows.reshape(groups, -1, n)).reshape(-1, n)
