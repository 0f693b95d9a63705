"""Spectral (canonical) gauge: minimal norm, and everything that it leaves free fixed as well.

In this order, each step by quantities that the later ones do not change:

1. shifts and kernels, by conditions that the linear part leaves alone (:mod:`gaugefix.slices.affine_gauge`);
2. rotations of a residual stream: principal axes of what enters and leaves it (:mod:`gaugefix.slices.stream`);
3. scalings, mixings and planes: minimal norm, a convex problem whose solution is unique up to rotations and signs
   (Kempf and Ness 1979; docs/concepts/slices.md); norm 1 for scales without a counterpart;
4. permutations: units, heads and channels by decreasing size;
5. the rotation of each block: second moments A = B = diag(s) with decreasing s, the singular values of W_Qᵀ W_K per
   head; of each plane: principal axes, so that its phase is fixed;
6. signs, by an odd sum over each coordinate.

The result is unique where the entries of s, the sizes and the sums are distinct.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gaugefix.groups import DiagonalGroup, GeneralLinear, MatrixGroup, Orthogonal
from gaugefix.slices.affine_gauge import affine_step, fix_affine
from gaugefix.slices.axes import axes, has_axes
from gaugefix.slices.base import Slice, register_slice
from gaugefix.slices.block import full_rank
from gaugefix.slices.completion import complete, movable, open_sides
from gaugefix.slices.joint import Joint
from gaugefix.slices.one_sided import is_one_sided, normalise
from gaugefix.slices.ordering import is_permutation, order
from gaugefix.slices.orientation import orient, sign_legs
from gaugefix.slices.second_moment import second_moments
from gaugefix.slices.stream import anchored_legs, has_zero_gain, turn_stream
from gaugefix.slices.trail import Trail
from gaugefix.symmetry import Element, GaugeGroup, LinearSymmetry, ResidualRotation, Symmetry
from gaugefix.symmetry.leg import Index


@dataclass(eq=False)
class _Parts:
    """The symmetries of a gauge group by what is done with them."""

    affine: list[Symmetry]
    rotations: list[ResidualRotation]
    one_sided: list[LinearSymmetry]
    scaled: list[LinearSymmetry]
    linear: Joint
    permutations: list[LinearSymmetry]
    turned: list[LinearSymmetry]
    signed: list[LinearSymmetry]
    turning: frozenset[str]

    @classmethod
    def of(cls, gauge: GaugeGroup) -> _Parts:
        linear = [s for s in gauge.applied if isinstance(s, LinearSymmetry)]
        rotations = [s for s in gauge.applied if isinstance(s, ResidualRotation)]
        turned = [s for s in linear if has_axes(s)]
        implied = {s.name for s in linear if any(_implied(s, r, linear, gauge.applied) for r in rotations)}
        matrices = [s for s in linear if isinstance(s.group, MatrixGroup)]
        return cls(
            affine=[s for s in gauge.applied if not isinstance(s, (LinearSymmetry, ResidualRotation))],
            rotations=rotations,
            one_sided=[s for s in linear if is_one_sided(s)],
            scaled=[s for s in linear if movable(s)],
            linear=Joint(gauge.select(lambda s: isinstance(s, LinearSymmetry) and not is_one_sided(s))),
            permutations=[s for s in linear if is_permutation(s) and s.name not in implied],
            turned=turned,
            signed=[s for s in linear if sign_legs(s) and s.name not in implied],
            turning=frozenset(name for s in (*matrices, *rotations) for name in s.parameters),
        )


_PARTS: weakref.WeakKeyDictionary[GaugeGroup, _Parts] = weakref.WeakKeyDictionary()


def parts_of(gauge: GaugeGroup) -> _Parts:
    """The symmetries of a gauge group, sorted (cached)."""
    if gauge not in _PARTS:
        _PARTS[gauge] = _Parts.of(gauge)
    return _PARTS[gauge]


@register_slice("spectral")
class Spectral(Slice):
    """The canonical form: minimal norm on principal axes, sorted and with fixed signs.

    A GL block without full rank (LoRA at initialisation), a dead unit and a dead plane are left as they are, and so is
    a symmetry whose orbit holds no point of least norm: there the form is not unique. Where two entries of s coincide
    the axes between them stay where they are.

    Args:
        tolerance: largest |log λ| (or relative step of the other kinds) that is left.
        rounds: limit of alternations.
    """

    def __init__(self, tolerance: float = 1e-6, rounds: int = 200) -> None:
        self.tolerance = tolerance
        self.rounds = rounds

    @torch.no_grad()
    def solve(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Element:
        return self.walk(gauge, tensors).element()

    def walk(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor], whole: bool = False) -> Trail:
        """As :meth:`solve`, with the parameters on the slice, in float64.

        Args:
            gauge: the group.
            tensors: parameters and buffers by name.
            whole: to compare models: bring blocks and units that have one side only to norm 1, which a projection
                leaves alone, and note in the trail which symmetries stay undetermined.
        """
        parts, trail = parts_of(gauge), Trail(gauge, tensors)
        fix_affine(trail, parts.affine, self.tolerance)
        for rotation in parts.rotations:
            turn_stream(trail, rotation)
        for s in parts.one_sided:
            trail.go(s.name, normalise(s, trail.tensors))
        for _ in range(self.rounds):
            moved = complete(trail, parts.scaled) if whole else 0.0
            for name, value in parts.linear.solve(trail.tensors, self.tolerance, self.rounds):
                trail.go(name, value)
            if moved <= self.tolerance:
                break
        fix_frame(trail, parts, whole)
        if whole:
            settled = moved <= self.tolerance
            trail.unfixed = tuple(s.name for s in gauge.applied if _unfixed(s, parts, trail, settled))
        return trail

    @torch.no_grad()
    def residual(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return ‖μ‖/‖θ‖², the relative off-diagonal part of A + B and the relative steps of shifts, root of squares.

        Permutations and signs have no residual: they are in order or not.
        """
        parts, wide = parts_of(gauge), {name: tensors[name].detach().double() for name in gauge.shapes}
        found = [parts.linear.residual(wide)]
        found += [torch.tensor(affine_step(s, wide)[1], dtype=torch.float64) for s in parts.affine]
        found += [normalise(s, wide).log().abs().max() for s in parts.one_sided]
        for s in parts.turned:
            a, b = second_moments(s, wide)
            if isinstance(s.group, GeneralLinear):
                full = (full_rank(a) & full_rank(b))[:, None, None]
                a, b = a * full, b * full
            if not (isinstance(s.group, Orthogonal) and s.group.fixes_ones):
                diagonal = torch.diag_embed((a + b).diagonal(dim1=-2, dim2=-1))
                found.append(((a + b - diagonal).norm() / (a + b).norm().clamp_min(1e-300)).cpu())
        return torch.stack([f.double().cpu() for f in found]).square().sum().sqrt()


def fix_frame(trail: Trail, parts: _Parts, whole: bool) -> None:
    """Fix permutations, axes and signs; elements that do nothing are left out."""
    for s in parts.permutations:
        _go(trail, s, order(s, trail.tensors, parts.turning))
    for s in parts.turned:
        _go(trail, s, axes(s, trail.tensors, trail.eps, whole))
    alone = {} if whole else {s.name: _alone(s, trail.tensors) for s in parts.signed}
    for name, value in orient(parts.signed, trail.tensors, alone).items():
        _go(trail, trail.gauge[name], value)


def _unfixed(symmetry: Symmetry, parts: _Parts, trail: Trail, settled: bool) -> bool:
    """Whether the form does not determine the element of ``symmetry`` here.

    A block whose vectors and covectors both lack rank, an orbit without a point of least norm, a stream that only other
    symmetries read.
    """
    if isinstance(symmetry, ResidualRotation):
        return not anchored_legs(symmetry, trail.gauge.applied) or has_zero_gain(symmetry, trail.tensors)
    if symmetry not in parts.scaled:
        return False
    joint = parts.linear
    mixing = isinstance(symmetry.group, GeneralLinear)
    if symmetry.name in joint.unreached or (mixing and joint.scalings_only):
        return True
    sides = open_sides(symmetry, trail.tensors)
    if sides is None:
        return False
    neither, either = ~sides[0] & ~sides[1], sides[0] ^ sides[1]
    return bool((mixing and neither.any()) or (either.any() and not settled))


def _alone(symmetry: LinearSymmetry, tensors: Mapping[str, Tensor]) -> Index:
    """Coordinates of blocks and units without full rank on both sides: they stay as they are."""
    sides = open_sides(symmetry, tensors)
    if sides is None:
        return np.zeros(0, dtype=np.int64)
    dead = ~(sides[0] & sides[1])
    return np.flatnonzero(dead.repeat_interleave(symmetry.group.coordinates // dead.shape[0]).cpu().numpy())


def _go(trail: Trail, symmetry: Symmetry, value: Tensor) -> None:
    if not torch.equal(value, symmetry.group.identity(device=value.device)):
        trail.go(symmetry.name, value)


def _implied(
    symmetry: LinearSymmetry, rotation: ResidualRotation, linear: list[LinearSymmetry], applied: tuple[Symmetry, ...]
) -> bool:
    """Whether ``symmetry`` (a permutation or sign of the stream) is a rotation of it, followed by scalings of gains.

    Then nothing of it is left once the rotation is fixed. The rotation must turn the same axes, and every gain that it
    passes must have a scaling of its own.
    """
    if symmetry.group.dimension or not anchored_legs(rotation, applied):
        return False
    turned = {(leg.parameter, leg.axes) for leg, _ in rotation.legs}
    gains = {gain.parameter for _, gain in rotation.legs if gain is not None}
    scaled = {
        leg.parameter
        for s in linear
        if isinstance(s.group, DiagonalGroup) and s.group.dimension
        for leg in s.legs
        if abs(leg.power) == 1
    }
    moved = {(leg.parameter, leg.axes) for leg in symmetry.legs if leg.parameter not in gains}
    return moved <= turned and gains <= scaled
