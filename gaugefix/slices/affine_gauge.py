"""A gauge for shifts and kernels that the linear part of the group leaves alone.

Minimal norm is one gauge for them, but a poor start for a canonical form: it couples to the scalings, converges slowly
and has several local minima (a reader kernel with the gains is a geometric median). These conditions are linear and
equivariant: mixings, scalings and rotations map points that fulfil them to points that do, so that the linear part is
fixed afterwards, by a convex problem, and nothing has to be repeated.

- writer kernel, W ← W + 1⊗s: the mean of W along its axis is 0;
- reader kernel, W ← W + u⊗(1/γ): Wγ = 0;
- shift: the bias from which it starts vanishes; of an embedding the mean of its rows does. What the first bias leaves
  free is fixed by the next one, so that no condition waits for a later one;
- shift of a norm that stands in for the bias of its readers (``AbsorbAlong``): β = γ, for β = 0 would leave no bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from gaugefix.slices.least_norm import is_statistic, least_squares
from gaugefix.slices.stream import generic_weights
from gaugefix.slices.trail import Trail
from gaugefix.symmetry import Absorb, AbsorbAlong, Add, Derive, ReaderKernel, ShiftSymmetry, Symmetry, WriterKernel
from gaugefix.symmetry.leg import Index

_SWEEPS = 50


def fix_affine(trail: Trail, symmetries: Sequence[Symmetry], tolerance: float) -> None:
    """Go on until every condition holds up to a relative step of ``tolerance``; kernels first, for biases follow."""
    for _ in range(_SWEEPS):
        largest = 0.0
        for s in sorted(symmetries, key=lambda s: isinstance(s, ShiftSymmetry)):
            value, size = affine_step(s, trail.tensors)
            if size > 0.1 * tolerance:
                trail.go(s.name, value)
            largest = max(largest, size)
        if largest <= tolerance:
            return


def affine_step(symmetry: Symmetry, tensors: Mapping[str, Tensor]) -> tuple[Tensor, float]:
    """Return the element that fulfils the condition of one symmetry, and its size relative to what it moves."""
    if isinstance(symmetry, ShiftSymmetry):
        return _shift(symmetry, tensors)
    if isinstance(symmetry, WriterKernel):
        weight = tensors[symmetry.weight]
        value = -weight.mean(symmetry.axis).reshape(-1)
        return value, float(value.norm() * weight.shape[symmetry.axis] ** 0.5 / weight.norm().clamp_min(1e-300))
    assert isinstance(symmetry, ReaderKernel)
    weight = tensors[symmetry.weight]
    size = weight.shape[symmetry.axis]
    gain = torch.ones(size).to(weight) if symmetry.gain is None else tensors[symmetry.gain].reshape(-1)
    value = -(weight.movedim(symmetry.axis, -1) @ gain).reshape(-1) / size
    if bool((gain == 0).any()):
        return torch.zeros_like(value), 0.0  # its kernel is not 1/γ
    return value, float(value.norm() * gain.reciprocal().norm() / weight.norm().clamp_min(1e-300))


def _shift(symmetry: ShiftSymmetry, tensors: Mapping[str, Tensor]) -> tuple[Tensor, float]:
    read = {name: tensors[name] for name in symmetry.reads}
    device = next(iter(read.values())).device
    zero = torch.zeros(symmetry.acting.n, dtype=torch.float64, device=device)
    sources = _sources(symmetry)
    names = list(dict.fromkeys(leg.parameter for leg in sources))
    goals = {name: torch.zeros_like(read[name]) for name in names}
    for leg in symmetry.legs:
        if isinstance(leg, AbsorbAlong):
            shift = read[leg.shift]
            gain = torch.ones_like(shift) if leg.gain is None else read[leg.gain]
            if bool((gain == 0).any()) or bool((shift.reshape(-1) / gain.reshape(-1)).sum() == 0):
                return zero, 0.0  # no constant to stand in for a bias
            goals[leg.shift] = gain.reshape(shift.shape)
    value, free = zero, torch.ones_like(zero, dtype=torch.bool)
    size = 0.0
    for name in names:
        legs = [leg for leg in sources if leg.parameter == name]
        plain = _plain(legs, symmetry, free)
        if plain is not None:
            part, reached, step = _means(goals[name] - read[name], plain, zero)
            value, free, size = value + part, free & ~reached, max(size, step / max(float(read[name].norm()), 1e-300))
            continue

        def moved(v: Tensor, legs: list[Add | Absorb] = legs) -> tuple[Tensor]:
            return (_with_shift(legs, read, symmetry.shifts(read, v)),)

        base, pull = torch.func.vjp(moved, value)[:2]
        reached = free & (pull((generic_weights(base[0].numel()).to(base[0]).reshape(base[0].shape),))[0] != 0.0)
        if not bool(reached.any()):
            continue
        where = reached.nonzero()[:, 0]

        def within(v: Tensor, where: Tensor = where, start: Tensor = value) -> tuple[Tensor]:
            return moved(start.index_add(0, where, v))

        part, step = least_squares(within, zero[where], [goals[name]])
        value, free, size = value.index_add(0, where, part), free & ~reached, max(size, step)
    return value, size


def _plain(legs: Sequence[Add | Absorb], symmetry: ShiftSymmetry, free: Tensor) -> Index | None:
    """The index of a parameter that gets free coordinates as they are, none of which is fixed yet."""
    if len(legs) > 1 or not isinstance(legs[0], Add) or len(legs[0].form.terms) > 1:
        return None
    coefficient, index = legs[0].form.terms[0]
    known = np.append(free.cpu().numpy(), True)  # index −1 finds the last one
    inside = bool((index < symmetry.acting.n).all()) and bool(known[index].all())
    return index if coefficient == 1.0 and inside else None


def _means(missing: Tensor, index: Index, zero: Tensor) -> tuple[Tensor, Tensor, float]:
    """Least squares for one coordinate per entry: means; which coordinates occur, and the norm of the step."""
    n = zero.shape[0]
    where = torch.from_numpy(np.where(index < 0, n, index)).to(missing.device)
    where = where.reshape((1,) * (missing.ndim - where.ndim) + where.shape).expand(missing.shape).reshape(-1)
    total = zero.new_zeros(n + 1).index_add_(0, where, missing.reshape(-1))[:n]
    count = zero.new_zeros(n + 1).index_add_(0, where, torch.ones_like(missing).reshape(-1))[:n]
    part = total / count.clamp_min(1.0)
    return part, count > 0.0, float((part.square() * count).sum().sqrt())


def _with_shift(legs: Sequence[Add | Absorb], read: Mapping[str, Tensor], t: Tensor) -> Tensor:
    """The parameter of ``legs``, shifted."""
    value = read[legs[0].parameter]
    for leg in legs:
        change = leg.delta(read, t)
        value = value + (change.reshape(value.shape) if change.numel() == value.numel() else change)
    return value


def _sources(symmetry: ShiftSymmetry) -> list[Add | Absorb]:
    """Legs at which a shift starts: where a constant is added that no weight has been applied to."""
    derived = np.zeros(symmetry.size + 1, dtype=bool)  # the last entry is what index −1 finds: nothing
    for step in symmetry.steps:
        reached = isinstance(step, Derive) or any(derived[index].any() for _, index in step.form.terms)
        derived[step.target] = reached
    found: list[Add | Absorb] = []
    for leg in symmetry.legs:
        if isinstance(leg, AbsorbAlong) or is_statistic(leg.parameter):
            continue
        form = leg.form if isinstance(leg, Add) else leg.target
        if form is None:
            continue
        if not any(derived[index].any() for _, index in form.terms):
            found.append(leg)
    return found
