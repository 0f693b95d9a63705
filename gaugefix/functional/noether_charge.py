"""Noether charges: what gradient flow conserves because of a symmetry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gaugefix.groups import ComplexScaling, DiagonalGroup, GeneralLinear
from gaugefix.slices.second_moment import second_moments
from gaugefix.symmetry import GaugeGroup, LinearSymmetry, Symmetry, WriterKernel

if TYPE_CHECKING:
    from torch import nn


@torch.no_grad()
def noether_charge(model: nn.Module, gauge: GaugeGroup) -> dict[str, Tensor]:
    """Return the Noether charge of every applied symmetry that has one.

    The charge is the moment map of ½‖θ‖², ⟨q, x⟩ = d/dt ½‖exp(tx)·θ‖² at t = 0:

    - scaling: q_i = Σ_legs k·Σ P², k the power of the leg: in_i − out_i of a unit;
    - GL(n): C = Σ_vectors PPᵀ − Σ_covectors PPᵀ, symmetric;
    - complex scaling: ½ tr C times the unit matrix per plane: the part of the scale, for phases have no charge;
    - a constant added along an axis (writer kernel): the sums of the weight along it.

    Gradient flow conserves it where all legs are trained, gradient descent changes it by O(lr²) a step, weight decay
    contracts it (Kunin et al., *Neural Mechanics*, arXiv 2012.04728). Rotations and discrete groups have no charge of
    this kind, and neither have shifts and reader kernels, whose motion depends on the weights.

    Args:
        model: any model that the group fits.
        gauge: its group.

    Returns:
        Symmetry name → charge, float64: (n,) for scalings and kernels, (batch, n, n) for GL(n) and planes.

    Raises:
        SymmetryError: if the group belongs to another model.

    Example:
        >>> import torch, gaugefix
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8, bias=False), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> charge = noether_charge(net, gaugefix.discover(net, (torch.randn(3, 4),)))["0:scale"]
        >>> balance = net[0].weight.square().sum(1) - net[2].weight.square().sum(0)
        >>> torch.allclose(charge.float(), balance)
        True
    """
    tensors = gauge.check(model)
    charges = {s.name: _charge(s, tensors) for s in gauge.applied if s.group.dimension}
    return {name: charge for name, charge in charges.items() if charge is not None}


def charge_norm(charges: Mapping[str, Tensor]) -> float:
    """Return ‖q‖, the root of the sum of squares over all symmetries."""
    squares = [charge.square().sum().cpu() for charge in charges.values()]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def _charge(symmetry: Symmetry, tensors: Mapping[str, Tensor]) -> Tensor | None:
    if isinstance(symmetry, WriterKernel):
        return tensors[symmetry.weight].detach().double().sum(symmetry.axis).reshape(-1)
    if not isinstance(symmetry, LinearSymmetry):
        return None
    if isinstance(symmetry.group, (ComplexScaling, GeneralLinear)):
        vectors, covectors = second_moments(symmetry, tensors)
        charge = vectors - covectors
        if isinstance(symmetry.group, GeneralLinear):
            return charge
        return torch.diag_embed(0.5 * charge.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True).expand(-1, 2))
    return _diagonal(symmetry, tensors) if isinstance(symmetry.group, DiagonalGroup) else None


def _diagonal(symmetry: LinearSymmetry, tensors: Mapping[str, Tensor]) -> Tensor:
    """q_i = Σ_legs k·Σ_entries (P + offset)²; statistics in buffers are not trained and have no norm."""
    n = symmetry.group.coordinates
    parts = []
    for leg in symmetry.legs:
        if leg.buffer:
            continue
        tensor = tensors[leg.parameter].detach()
        tensor = tensor + leg.offset if leg.offset else tensor
        square = (tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()).square()
        idle = [axis for axis, size in enumerate(leg.index.shape) if size == 1 and square.shape[axis] > 1]
        square = square.sum(idle, keepdim=True, dtype=torch.float64) if idle else square.double()
        parts.append(leg.power * leg.collect(square, n))
    return torch.stack(parts).sum(0) if parts else torch.zeros(n, dtype=torch.float64)
