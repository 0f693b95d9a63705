"""A canonical form where there is no point of least norm: one side at norm 1.

If only one side of a block has full rank, or only one side of a unit is not zero, the norm falls for ever as that side
shrinks, and minimal norm leaves it alone: a projection during training must not shrink the one factor of LoRA that is
not zero. To compare models, any condition on that side serves: A = 1 (or B = 1) for a block, norm 1 for a unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gaugefix.groups import ComplexScaling, DiagonalGroup, GeneralLinear
from gaugefix.slices.block import full_rank
from gaugefix.slices.layout import as_scaling
from gaugefix.slices.one_sided import is_one_sided
from gaugefix.slices.second_moment import coordinate_sums, second_moments
from gaugefix.slices.trail import Trail
from gaugefix.symmetry import LinearSymmetry


def complete(trail: Trail, symmetries: Sequence[LinearSymmetry]) -> float:
    """Bring one-sided blocks and units to norm 1; return the largest |log| of a step."""
    largest = 0.0
    for s in symmetries:
        value = _whiten(s, trail.tensors) if isinstance(s.group, GeneralLinear) else _normalise(s, trail.tensors)
        if value is not None:
            trail.go(s.name, value)
            largest = max(
                largest, float(torch.linalg.svdvals(value).log().abs().max()) if value.ndim > 1 else _log(value)
            )
    return largest


def open_sides(symmetry: LinearSymmetry, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
    """Whether vectors and covectors of every block or unit are of full rank, (batch,) or (units,) each.

    ``None`` for groups that do not change the norm, and for scales that have one side by construction.
    """
    if isinstance(symmetry.group, GeneralLinear):
        a, b = second_moments(symmetry, tensors)
        return full_rank(a), full_rank(b)
    scaling = as_scaling(symmetry)
    if scaling is None or is_one_sided(symmetry):
        return None
    ins, outs = _squares(scaling, tensors)
    return ins > 0.0, outs > 0.0


def _squares(scaling: LinearSymmetry, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    n = scaling.group.coordinates
    device = tensors[scaling.legs[0].parameter].device
    sums = [torch.zeros(n, dtype=torch.float64, device=device) for _ in range(2)]
    for leg in scaling.legs:
        if not leg.buffer:
            sums[0 if leg.power > 0 else 1] += coordinate_sums(leg, (tensors[leg.parameter] + leg.offset).square(), n)
    return sums[0], sums[1]


def _whiten(symmetry: LinearSymmetry, tensors: Mapping[str, Tensor]) -> Tensor | None:
    """G = A^{-1/2} where only A has full rank, B^{1/2} where only B has."""
    a, b = second_moments(symmetry, tensors)
    first, second = full_rank(a), full_rank(b)
    if bool((first == second).all()):
        return None
    g = symmetry.group.identity(device=a.device)
    for mask, moment, power in ((first & ~second, a, -0.5), (second & ~first, b, 0.5)):
        if bool(mask.any()):
            values, vectors = torch.linalg.eigh(moment[mask])
            g[mask] = (vectors * values.pow(power)[:, None, :]) @ vectors.mT
    return g


def _normalise(symmetry: LinearSymmetry, tensors: Mapping[str, Tensor]) -> Tensor | None:
    """λ that brings the only side of a unit to norm 1, if all its legs have power ±1."""
    scaling = as_scaling(symmetry)
    if scaling is None or is_one_sided(symmetry) or any(abs(leg.power) != 1 for leg in scaling.legs if not leg.buffer):
        return None
    ins, outs = _squares(scaling, tensors)
    one = (ins > 0.0) != (outs > 0.0)
    if not bool(one.any()):
        return None
    scale = torch.where(one & (ins > 0.0), ins.clamp_min(1e-300).rsqrt(), 1.0)
    scale = torch.where(one & (outs > 0.0), outs.clamp_min(1e-300).sqrt(), scale)
    planes = isinstance(symmetry.group, ComplexScaling)
    return torch.diag_embed(scale[:, None].expand(-1, 2)) if planes else scale


def _log(scale: Tensor) -> float:
    return float(scale.abs().log().abs().max())


def movable(symmetry: object) -> bool:
    """Whether the group changes the norm of a linear symmetry."""
    groups = (ComplexScaling, DiagonalGroup, GeneralLinear)
    return isinstance(symmetry, LinearSymmetry) and isinstance(symmetry.group, groups) and symmetry.group.dimension > 0
