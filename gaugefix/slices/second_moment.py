"""Second moments of the legs of a matrix symmetry."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from gaugefix.groups import MatrixGroup
from gaugefix.symmetry import Leg, LinearSymmetry


def second_moments(
    symmetry: LinearSymmetry, tensors: Mapping[str, Tensor], without: Collection[str] = ()
) -> tuple[Tensor, Tensor]:
    """Return A = Σ_vectors PPᵀ and B = Σ_covectors PPᵀ per block, (batch, n, n), float64.

    One batched product per leg, summed in float64: a parameter is converted once, piece by piece, which costs less than
    the product.

    Args:
        symmetry: one of a matrix group.
        tensors: parameters by name.
        without: parameters to leave out.
    """
    group = symmetry.group
    assert isinstance(group, MatrixGroup)
    device = tensors[symmetry.legs[0].parameter].device
    moments = [torch.zeros(group.shape, dtype=torch.float64, device=device) for _ in range(2)]
    for leg in symmetry.legs:
        if leg.buffer or leg.parameter in without:
            continue
        vectors, block = block_vectors(leg, tensors[leg.parameter].detach(), group.n)
        add_blocks_(moments[0 if leg.power > 0 else 1], vectors @ vectors.mT, block)
    return moments[0], moments[1]


def cross_moments(leg: Leg, tensor: Tensor, other: Tensor, n: int, batch: int) -> Tensor:
    """Return Σ P P'ᵀ per block, (batch, n, n), float64, over the vectors of two tensors with the same leg."""
    vectors, block = block_vectors(leg, tensor.detach(), n)
    others, _ = block_vectors(leg, other.detach(), n)
    total = torch.zeros(batch, n, n, dtype=torch.float64, device=tensor.device)
    add_blocks_(total, vectors @ others.mT, block)
    return total


def block_vectors(leg: Leg, tensor: Tensor, n: int) -> tuple[Tensor, np.ndarray]:
    """Return the vectors on which a matrix element acts, (copies, n, rest), float64, and the block of each copy.

    Where the entries of the leg lie in order along one axis, as the heads of an attention do, nothing is gathered.
    """
    position, block = leg.positions(n)
    flat = position.reshape(-1)
    if leg.flat and bool((flat == np.arange(flat[0], flat[0] + flat.size)).all()):
        lines = tensor.movedim(leg.axes[0], 0).narrow(0, int(flat[0]), flat.size)
        vectors = (
            lines.reshape(*position.shape, *lines.shape[1:]).flatten(2)
            if lines.ndim > 1
            else lines.view(*position.shape, 1)
        )
    else:
        lines = tensor.movedim(leg.axes, tuple(range(len(leg.axes)))).flatten(0, len(leg.axes) - 1)
        lines = lines.flatten(1) if lines.ndim > 1 else lines[:, None]
        vectors = lines[torch.from_numpy(position).to(tensor.device)]
    vectors = vectors.double()
    return (vectors + leg.offset if leg.offset else vectors), block


def coordinate_sums(leg: Leg, entries: Tensor, n: int) -> Tensor:
    """Sum ``entries``, of the shape of the parameter, per coordinate of the leg, (n,)."""
    idle = [axis for axis, size in enumerate(leg.index.shape) if size == 1 and entries.shape[axis] > 1]
    return leg.collect(entries.sum(idle, keepdim=True) if idle else entries, n)


def add_blocks_(total: Tensor, each: Tensor, block: np.ndarray) -> None:
    """Add the matrices of all copies, (copies, n, n), to those of their blocks."""
    if block.size == total.shape[0] and bool((block == np.arange(block.size)).all()):
        total += each
    else:
        total.index_add_(0, torch.from_numpy(block).to(total.device), each)
