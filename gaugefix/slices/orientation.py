"""Signs: what is left of scalings, mixings and planes on principal axes, and all that odd activations allow.

A sign multiplies the entries of its coordinate, and an entry may belong to coordinates of several symmetries: what can
be fixed is the product of its signs. It is fixed by an odd sum T > 0 over entries along the other axes, where the
products of those axes are fixed already. Biases, gains and maps whose other axis is an input or an output come first;
what they fix opens the next layer. T = Σ P³ does not depend on the order along the other axes; where it is small, as
for a row and its mirror image, T = Σ w_e P_e with fixed weights decides. Sums that are large against the spread of
their terms come before those that are small, so that rounding decides nothing as long as another leg can.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gaugefix.groups import ComplexScaling, GeneralLinear, Orthogonal, SignedScaling, Signs
from gaugefix.slices.sign_space import SignSpace
from gaugefix.slices.stream import generic_weights
from gaugefix.symmetry import Leg, LinearSymmetry
from gaugefix.symmetry.leg import Index

_LEVELS = ((3, 0.3), (1, 0.3), (3, 0.03), (1, 0.03), (1, 1e-3), (1, 1e-6), (1, 1e-12))
"""Power of the entries in T, and what |T| must be against the root of the sum of squares of its terms to decide."""


def sign_legs(symmetry: object) -> tuple[Leg, ...]:
    """The legs on which the symmetry has signs; none if it has no signs."""
    if not isinstance(symmetry, LinearSymmetry):
        return ()
    group = symmetry.group
    free = isinstance(group, (ComplexScaling, GeneralLinear, SignedScaling, Signs))
    free = free or (isinstance(group, Orthogonal) and not group.fixes_ones)
    return tuple(leg for leg in symmetry.legs if leg.power % 2 and not leg.buffer) if free else ()


def orient(
    symmetries: Sequence[LinearSymmetry], tensors: Mapping[str, Tensor], alone: Mapping[str, Index]
) -> dict[str, Tensor]:
    """Return the element of signs of every symmetry, by name; products that no sum can fix stay.

    Args:
        symmetries: those with signs.
        tensors: float64 parameters by name, everything else of their gauge fixed.
        alone: coordinates of a symmetry that are not to be flipped.
    """
    starts = dict(zip([s.name for s in symmetries], np.cumsum([0, *map(_count, symmetries)]), strict=False))
    signs = np.ones(sum(map(_count, symmetries)) + 1)  # the last one is that of entries without a sign
    sides = _sides(symmetries, starts, alone)
    values = {n: tensors[n].double().cpu() + offset for n, offset in _offsets(symmetries).items()}
    space, level = SignSpace(), 0
    while level < len(_LEVELS) and not all(side.settled(space) for found in sides.values() for side in found):
        progress = False
        for name, found in sides.items():
            for side in found:
                others = [other for other in found if other is not side]
                progress |= _decide(side, others, values[name], space, signs, *_LEVELS[level])
        level = 0 if progress else level + 1
    elements: dict[str, Tensor] = {}
    for s in symmetries:
        mine = torch.from_numpy(signs[starts[s.name] : starts[s.name] + _count(s)])
        elements[s.name] = _element(s, mine).to(tensors[s.legs[0].parameter].device)
    return elements


@dataclass(eq=False)
class _Side:
    """Legs of one parameter along the same axes, with the signs of each position, (legs, positions), −1 for none."""

    axes: tuple[int, ...]
    shape: tuple[int, ...]
    signs: Index
    open: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.open = np.flatnonzero((self.signs >= 0).any(0)).tolist()

    def product(self, position: int) -> list[int]:
        return [k for k in self.signs[:, position].tolist() if k >= 0]

    def settled(self, space: SignSpace) -> bool:
        """Whether every product is fixed."""
        self.open = [p for p in self.open if space.reduce(self.product(p))]
        return not self.open

    def factor(self, signs: np.ndarray) -> Tensor:
        return torch.from_numpy(signs[self.signs].prod(0)).reshape(self.shape)

    def fixed(self, space: SignSpace) -> Tensor:
        """1 where the product is fixed, else 0."""
        self.settled(space)
        mask = torch.ones(self.signs.shape[1], dtype=torch.float64)
        mask[self.open] = 0.0
        return mask.reshape(self.shape)


def _decide(
    side: _Side,
    others: Sequence[_Side],
    values: Tensor,
    space: SignSpace,
    signs: np.ndarray,
    power: int,
    confident: float,
) -> bool:
    """Fix the open products of one side whose sums are clear; return whether there were any."""
    if side.settled(space):
        return False
    terms = values**power
    for other in others:
        terms = terms * (other.fixed(space) * other.factor(signs))
    idle = [axis for axis in range(values.ndim) if axis not in side.axes]
    for axis in idle if power == 1 else ():
        shape = [1] * values.ndim
        shape[axis] = -1
        terms = terms * generic_weights(values.shape[axis]).reshape(shape)
    sums = terms.sum(idle, keepdim=True) if idle else terms
    squares = terms.square().sum(idle, keepdim=True) if idle else terms.square()
    clear = (sums.abs() > confident * squares.sqrt()).expand(side.shape).reshape(-1).tolist()
    totals = sums.expand(side.shape).reshape(-1).tolist()
    progress = False
    for position in side.open:
        product = side.product(position)
        rest = space.reduce(product) if clear[position] else None
        if rest:
            together = list(space.fix(rest))
            if totals[position] * signs[product].prod() < 0.0:
                signs[together] *= -1.0
            progress = True
    return progress


def _sides(
    symmetries: Sequence[LinearSymmetry], starts: Mapping[str, int], alone: Mapping[str, Index]
) -> dict[str, list[_Side]]:
    """The sides of every parameter; legs whose axes overlap are one side."""
    groups: dict[str, list[tuple[set[int], list[Index]]]] = {}
    for s in symmetries:
        for leg in sign_legs(s):
            axes = set(leg.axes)
            skipped = (leg.index < 0) | np.isin(leg.index, alone.get(s.name, ()))
            indices = [np.where(skipped, -1, leg.index // _width(s) + starts[s.name])]
            apart = []
            for known in groups.get(leg.parameter, []):
                if known[0] & axes:
                    axes, indices = axes | known[0], [*known[1], *indices]
                else:
                    apart.append(known)
            groups[leg.parameter] = [*apart, (axes, indices)]
    sides: dict[str, list[_Side]] = {}
    for name, found in groups.items():
        for axes, indices in found:
            stack = np.stack(np.broadcast_arrays(*indices))
            side = _Side(tuple(sorted(axes)), stack.shape[1:], stack.reshape(len(indices), -1))
            sides.setdefault(name, []).append(side)
    return sides


def _offsets(symmetries: Sequence[LinearSymmetry]) -> dict[str, float]:
    return {leg.parameter: leg.offset for s in symmetries for leg in sign_legs(s)}


def _width(symmetry: LinearSymmetry) -> int:
    """Coordinates that share one sign."""
    return 2 if isinstance(symmetry.group, ComplexScaling) else 1


def _count(symmetry: LinearSymmetry) -> int:
    return symmetry.group.coordinates // _width(symmetry)


def _element(symmetry: LinearSymmetry, signs: Tensor) -> Tensor:
    """The element that multiplies the coordinates by ``signs``."""
    group = symmetry.group
    if isinstance(group, ComplexScaling):
        return torch.diag_embed(signs[:, None].expand(-1, 2))
    if isinstance(group, (GeneralLinear, Orthogonal)):
        return torch.diag_embed(signs.reshape(group.batch, group.n))
    return signs.clone()
