"""Preconditioners: the Gram matrix VᵀV of one symmetry alone, or a simple model of it, inverted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gaugefix.functional.infinitesimal import Infinitesimal
from gaugefix.groups import ComplexScaling, DiagonalGroup, MatrixGroup, Orthogonal
from gaugefix.slices.second_moment import coordinate_sums, second_moments
from gaugefix.slices.shift_normal import ShiftNormal
from gaugefix.symmetry import LinearSymmetry, ShiftSymmetry, Symmetry

Solve = Callable[[Tensor], Tensor]

_RANK = 1e-13
"""Relative size below which a generator counts as one that moves nothing."""


def preconditioner(action: Infinitesimal, counted: frozenset[str]) -> Solve:
    """Return the (pseudo-)inverse of the Gram matrix of one symmetry, or of a simple model of it."""
    symmetry, group = action.symmetry, action.symmetry.group
    if isinstance(symmetry, LinearSymmetry):
        if isinstance(group, DiagonalGroup):
            return _by_diagonal(action, symmetry)
        if isinstance(group, MatrixGroup):
            return _by_moments(action, symmetry, counted)
    if isinstance(symmetry, ShiftSymmetry):
        normal = ShiftNormal(symmetry, counted)
        if normal.possible:
            normal.prepare({name: action.tensors[name] for name in symmetry.reads})
            return normal.solve
    return _by_one_number(action, symmetry)


def _by_diagonal(action: Infinitesimal, symmetry: LinearSymmetry) -> Solve:
    """Σ_legs k²·Σ P² of every unit."""
    n = symmetry.group.coordinates
    total = action.tensors[symmetry.legs[0].parameter].new_zeros(n)
    for leg in symmetry.legs:
        if leg.parameter in action.names:
            square = (action.tensors[leg.parameter] + leg.offset).square()
            total += leg.power**2 * coordinate_sums(leg, square, n)
    inverse = torch.where(total > 0, total.reciprocal(), 0.0)
    return lambda slope: inverse * slope


def _by_moments(action: Infinitesimal, symmetry: LinearSymmetry, counted: frozenset[str]) -> Solve:
    """VᵀV X = X A + B X with the second moments A of vectors and B of covectors, solved on their principal axes."""
    group = symmetry.group
    without = [leg.parameter for leg in symmetry.legs if leg.parameter not in counted]
    a, b = second_moments(symmetry, action.tensors, without)
    if isinstance(group, ComplexScaling):
        trace = 0.5 * (a + b).diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
        return lambda slope: torch.where(trace > 0, slope / trace, 0.0)
    if isinstance(group, Orthogonal):
        a = b = 0.5 * (a + b)  # (X A + B X) for antisymmetric X and g⁻ᵀ = g, halved on both sides
    (values_a, axes_a), (values_b, axes_b) = torch.linalg.eigh(a), torch.linalg.eigh(b)
    sums = values_b.clamp_min(0)[:, :, None] + values_a.clamp_min(0)[:, None, :]
    inverse = torch.where(sums > _RANK * sums.amax((-2, -1), keepdim=True), sums.reciprocal(), 0.0)
    return lambda slope: axes_b @ (inverse * (axes_b.mT @ slope @ axes_a)) @ axes_a.mT


def _by_one_number(action: Infinitesimal, symmetry: Symmetry) -> Solve:
    """The mean of ‖V z‖²/‖z‖² over random z: exact for the kernels of layer norms."""
    some = action.tensors[symmetry.reads[0]]
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(action.shape, generator=generator, dtype=torch.float64).to(some.device)
    ratio = sum(float(part.square().sum()) for part in action.push(z).values()) / float(z.square().sum())
    return lambda slope: slope / ratio if ratio > 0.0 else torch.zeros_like(slope)
