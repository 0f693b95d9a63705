"""How second moments of gradients move along the orbit.

A gradient G on a vector leg moves by g⁻ᵀ, on a covector leg by g. Two kinds of averages are kept:

- squares E[G²], entry by entry: a scaling multiplies them by λ^(−2·power), exactly; a mixing by the elementwise square
  of its matrix, which is exact for uncorrelated entries only (as for exp_avg_sq of Adam: docs/transport.md), and where
  products are kept the sums of its rows are put right;
- products E[G Gᵀ] per block and leg of a GL group: its own mixing takes them to g⁻ᵀ E[G Gᵀ] g⁻¹, exactly; what acts on
  the other axes of the parameter changes the size of every row, which is read off the squares, and no angle between
  rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeGuard

import torch
from torch import Tensor

from gaugefix.groups import ComplexScaling, DiagonalGroup, GeneralLinear, MatrixGroup
from gaugefix.slices.second_moment import coordinate_sums
from gaugefix.symmetry import SQUARED_GRADIENT, GaugeGroup, Leg, LinearSymmetry, Symmetry


@dataclass(frozen=True, eq=False)
class BlockLeg:
    """One leg of a GL symmetry, whose products are kept."""

    symmetry: LinearSymmetry
    leg: Leg

    @property
    def n(self) -> int:
        """Size of a block."""
        return self.symmetry.block


def without_offsets(symmetry: LinearSymmetry) -> LinearSymmetry:
    """The symmetry as gradients see it: what is added to a parameter before it scales drops out."""
    if not any(leg.offset for leg in symmetry.legs):
        return symmetry
    legs = tuple(replace(leg, offset=0.0) if leg.offset else leg for leg in symmetry.legs)
    return replace(symmetry, legs=legs, exact_part=())


def gradient_part(gauge: GaugeGroup) -> GaugeGroup:
    """The scalings, planes and GL blocks of ``gauge`` without offsets: what the flat slice fixes."""
    kept = [
        without_offsets(s)
        for s in gauge.applied
        if isinstance(s, LinearSymmetry)
        and s.group.dimension
        and not s.conditional
        and isinstance(s.group, (DiagonalGroup, ComplexScaling, GeneralLinear))
    ]
    return replace(gauge, symmetries=tuple(kept))


def block_legs(symmetries: Iterable[Symmetry]) -> dict[str, BlockLeg]:
    """All legs of GL symmetries on parameters, by a key of their own."""
    found: dict[str, BlockLeg] = {}
    for s in symmetries:
        if isinstance(s, LinearSymmetry) and isinstance(s.group, GeneralLinear):
            found |= {f"{s.name}/{k}": BlockLeg(s, leg) for k, leg in enumerate(s.legs) if not leg.buffer}
    return found


def is_scaling(symmetry: Symmetry) -> TypeGuard[LinearSymmetry]:
    """Whether a symmetry multiplies entries by factors and does nothing else."""
    return isinstance(symmetry, LinearSymmetry) and isinstance(symmetry.group, DiagonalGroup)


def scale_squares_(symmetry: LinearSymmetry, value: Tensor, squares: Mapping[str, Tensor]) -> None:
    """Multiply the squares by λ^(−2·power) in place: one pass per leg."""
    assert isinstance(symmetry.group, DiagonalGroup)
    for leg in symmetry.legs:
        target = squares.get(leg.parameter)
        if target is not None:
            factor = symmetry.group.factor(value.to(target.device), SQUARED_GRADIENT * leg.power)
            target.mul_(leg.spread(factor.to(target.dtype), 1.0))


def moved_moments(
    symmetry: Symmetry,
    value: Tensor,
    squares: Mapping[str, Tensor],
    products: Mapping[str, Tensor],
    blocks: Mapping[str, BlockLeg],
) -> tuple[dict[str, Tensor | None], dict[str, Tensor | None]]:
    """Return the squares and products that one step changes, in the new gauge.

    ``None`` means that nothing is known in the new gauge: of products after a sign flip or a permutation on their
    parameter, of anything after a rotation of a residual stream. Shifts and kernels move none.

    Args:
        symmetry: what acts.
        value: its element.
        squares: by the name of the parameter.
        products: by the key of the leg.
        blocks: the legs of all products.
    """
    names = set(symmetry.parameters) & squares.keys()
    touched = {key: block for key, block in blocks.items() if block.leg.parameter in names and key in products}
    if not isinstance(symmetry, LinearSymmetry):
        gone = symmetry.conditional
        return (dict.fromkeys(names), dict.fromkeys(touched)) if gone else ({}, {})
    now = {name: squares[name] for name in names}
    if not touched:
        return {**symmetry.transport(now, value, SQUARED_GRADIENT)}, {}
    out: dict[str, Tensor | None] = {key: products[key] for key in touched}
    known = _keeps_angles(symmetry, value)
    for k, leg in enumerate(symmetry.legs):
        if leg.parameter not in names:
            continue
        before = now[leg.parameter]
        now |= replace(symmetry, legs=(leg,), exact_part=()).transport(now, value, SQUARED_GRADIENT)
        for key, block in touched.items():
            product = out[key]
            if block.leg.parameter != leg.parameter or product is None:
                continue
            if key == f"{symmetry.name}/{k}":
                matrix = _matrix(symmetry, value, leg).to(product)
                out[key] = mixed = matrix @ product @ matrix.mT
                now[leg.parameter] = _as_long_as(mixed, product, block, before, now[leg.parameter])
            else:
                out[key] = _resized(product, block, before, now[leg.parameter]) if known else None
    return {**now}, out


def _matrix(symmetry: LinearSymmetry, value: Tensor, leg: Leg) -> Tensor:
    """What moves a gradient on the leg, (batch, n, n)."""
    assert isinstance(symmetry.group, MatrixGroup)
    return symmetry.group.matrix(value, -leg.power)


def _keeps_angles(symmetry: LinearSymmetry, value: Tensor) -> bool:
    if isinstance(symmetry.group, DiagonalGroup):
        return bool((value > 0).all())
    return isinstance(symmetry.group, (ComplexScaling, GeneralLinear))


def _as_long_as(new: Tensor, old: Tensor, block: BlockLeg, before: Tensor, after: Tensor) -> Tensor:
    """The squares after a mixing with the sums of their rows as the products have them, which are exact."""
    n = block.symmetry.group.coordinates
    lengths = [product.diagonal(dim1=-2, dim2=-1).reshape(-1).clamp_min(0.0) for product in (new, old)]
    sums = [coordinate_sums(block.leg, entries.double(), n).to(new.device) for entries in (after, before)]
    known = (lengths[1] > 0) & (sums[0] > 0)
    factor = torch.where(known, lengths[0] * sums[1] / (lengths[1] * sums[0]).clamp_min(1e-300), 1.0)
    return after * block.leg.spread(factor.to(after), 1.0)


def _resized(product: Tensor, block: BlockLeg, before: Tensor, after: Tensor) -> Tensor:
    """The product with its rows as long as the squares say."""
    n = block.symmetry.group.coordinates
    old, new = (coordinate_sums(block.leg, entries.double(), n) for entries in (before, after))
    size = torch.where(old > 0, new / old.clamp_min(1e-300), 1.0).sqrt().view(product.shape[:2]).to(product)
    return size[:, :, None] * product * size[:, None, :]
