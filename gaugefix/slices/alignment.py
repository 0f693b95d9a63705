"""Coming nearer to a reference, symmetry by symmetry; no step increases the distance."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from gaugefix.groups import ComplexScaling, DiagonalGroup, GeneralLinear, Permutations, SignedScaling, Signs
from gaugefix.slices.least_norm import is_statistic, least_norm
from gaugefix.slices.nearest_block import nearest_blocks
from gaugefix.slices.nearest_scale import cross_sums, nearest_planes, nearest_scaling
from gaugefix.slices.nearest_turn import nearest_permutation, nearest_rotation, nearest_stream
from gaugefix.slices.second_moment import second_moments
from gaugefix.slices.stream import has_zero_gain
from gaugefix.slices.trail import Trail
from gaugefix.symmetry import Element, GaugeGroup, LinearSymmetry, ResidualRotation, ShiftSymmetry, Symmetry

_REACHED = 1e-22
"""Squared distance against the squared norm at which the reference counts as reached."""
_HALVINGS, _AFFINE_SWEEPS = 6, 30


class Alignment:
    """Moves parameters towards a reference: first by the linear part of the group, then by shifts and kernels.

    Args:
        gauge: the group.
        tensors: parameters and buffers by name; they stay as they are.
        goal: float64 parameters by name: the reference.
        free: names of the symmetries that move with their whole group; the others only by their compact part (signs,
            phases, rotations, permutations). All of them by default.
    """

    def __init__(
        self,
        gauge: GaugeGroup,
        tensors: Mapping[str, Tensor],
        goal: Mapping[str, Tensor],
        free: Collection[str] | None = None,
    ) -> None:
        self.trail = Trail(gauge, tensors)
        self.goal = goal
        self.free = {s.name for s in gauge.applied} if free is None else set(free)
        linear = [s for s in gauge.applied if isinstance(s, (LinearSymmetry, ResidualRotation))]
        self.linear = sorted(linear, key=_rank)
        self.affine = [s for s in gauge.applied if s not in linear and s.name in self.free]
        self.signed = {s.name: _partners(s, linear) for s in linear if isinstance(s.group, Permutations)}
        self.names = [n for n in self.trail.tensors if n in goal and not is_statistic(n)]
        self.tensors, self.last = self._affine()
        self.square = self._square(self.tensors)

    def run(self, tolerance: float, rounds: int) -> bool:
        """Sweep until the squared distance falls by less than ``tolerance`` of itself; return whether it did."""
        scale = sum(float(self.goal[n].square().sum()) for n in self.names)
        if self.square <= _REACHED * scale:
            return True
        for _ in range(rounds):
            before = self.square
            for s in self.linear:
                self._try(s)
                self._try_signed(s)
            self.tensors, self.last = self._affine()
            self.square = self._square(self.tensors)
            if before - self.square <= tolerance * before or self.square <= _REACHED * scale:
                return True
        return False

    def element(self) -> Element:
        """What leads from where the parameters were to where they are."""
        return Element((*self.trail.steps, *self.last))

    def _square(self, tensors: Mapping[str, Tensor]) -> float:
        parts = [(tensors[n] - self.goal[n]).square().sum() for n in self.names]
        return float(torch.stack(parts).sum()) if parts else 0.0

    def _affine(self) -> tuple[dict[str, Tensor], list[tuple[str, Tensor]]]:
        """Shifts and kernels by least squares, from where the linear part leads."""
        tensors, steps = dict(self.trail.tensors), list[tuple[str, Tensor]]()
        for _ in range(_AFFINE_SWEEPS if self.affine else 0):
            largest = 0.0
            for s in self.affine:
                if isinstance(s, ShiftSymmetry) and s.conditional:
                    continue  # not affine in its coordinates
                value, size = least_norm(s, tensors, reference=self.goal)
                if size > 0.0:
                    tensors.update(s.act(tensors, value))
                    steps.append((s.name, value))
                largest = max(largest, size)
            if largest <= 1e-9:
                break
        return tensors, steps

    def _try(self, symmetry: Symmetry) -> None:
        """Take the step of one symmetry if it leads nearer; a scaling that feeds itself goes part of the way."""
        value = self._nearest(symmetry)
        if value is None:
            return
        for _ in range(_HALVINGS):
            moved = {**self.tensors, **symmetry.act(self.tensors, value)}
            new = self._square(moved)
            if new < self.square:
                self.trail.go(symmetry.name, value)
                self.tensors, self.square = moved, new
                return
            if not isinstance(symmetry.group, DiagonalGroup) or not bool((value > 0.0).all()):
                return
            value = value.sqrt()

    def _try_signed(self, symmetry: Symmetry) -> None:
        """Permute units together with their signs, if that leads nearer."""
        partners = self.signed.get(symmetry.name, ())
        if not partners:
            return
        assert isinstance(symmetry, LinearSymmetry)
        steps = [(symmetry.name, nearest_permutation(symmetry, self.tensors, self.goal, signed=True))]
        moved = {**self.tensors, **symmetry.act(self.tensors, steps[0][1])}
        for partner in partners:
            value = nearest_scaling(partner, moved, self.goal, compact=True)
            steps.append((partner.name, value))
            moved.update(partner.act(moved, value))
        new = self._square(moved)
        if new < self.square:
            for name, value in steps:
                self.trail.go(name, value)
            self.tensors, self.square = moved, new

    def _nearest(self, symmetry: Symmetry) -> Tensor | None:
        whole = symmetry.name in self.free
        tensors, goal = self.tensors, self.goal
        if isinstance(symmetry, ResidualRotation):
            able = (whole or not symmetry.conditional) and not has_zero_gain(symmetry, tensors)
            return nearest_stream(symmetry, tensors, goal) if able else None
        assert isinstance(symmetry, LinearSymmetry)
        group = symmetry.group
        if isinstance(group, Permutations):
            return nearest_permutation(symmetry, tensors, goal)
        if isinstance(group, DiagonalGroup):
            return nearest_scaling(symmetry, tensors, goal, compact=not whole)
        if isinstance(group, ComplexScaling):
            return nearest_planes(symmetry, tensors, goal, compact=not whole)
        if isinstance(group, GeneralLinear) and whole:
            moments = (*second_moments(symmetry, tensors), *cross_sums(symmetry, tensors, goal))
            return nearest_blocks(*moments, second_moments(symmetry, goal)[1])
        return nearest_rotation(symmetry, tensors, goal)


def _partners(symmetry: Symmetry, others: Sequence[Symmetry]) -> list[LinearSymmetry]:
    """Symmetries that flip the signs of the units that ``symmetry`` permutes."""
    assert isinstance(symmetry, LinearSymmetry)
    legs = {(leg.parameter, leg.axes) for leg in symmetry.legs}
    return [
        s
        for s in others
        if isinstance(s, LinearSymmetry)
        and isinstance(s.group, (SignedScaling, Signs))
        and s.group.coordinates == symmetry.group.coordinates
        and {(leg.parameter, leg.axes) for leg in s.legs} <= legs
    ]


def _rank(symmetry: Symmetry) -> int:
    """Permutations first: nothing fits before units meet their counterparts."""
    return 0 if isinstance(symmetry.group, Permutations) else 1
