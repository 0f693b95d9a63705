"""Second moments of the legs of a matrix symmetry."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from gaugefix.groups import MatrixGroup
from gaugefix.symmetry import Leg, LinearSymmetry


def second_moments(
    symmetry: LinearSymmetry,
    tensors: Mapping[str, Tensor],
    without: Collection[str] = (),
    dtype: torch.dtype = torch.float64,
    differentiable: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return A = Σ_vectors PPᵀ and B = Σ_covectors PPᵀ per block, (batch, n, n).

    One batched product per leg: a parameter is converted once, piece by piece, which costs less than the product.

    Args:
        symmetry: one of a matrix group.
        tensors: parameters by name.
        without: parameters to leave out.
        dtype: of products and sums.
        differentiable: whether the moments may be differentiated by the parameters.
    """
    group = symmetry.group
    assert isinstance(group, MatrixGroup)
    device = tensors[symmetry.legs[0].parameter].device
    moments = [torch.zeros(group.shape, dtype=dtype, device=device) for _ in range(2)]
    for leg in symmetry.legs:
        if leg.buffer or leg.parameter in without:
            continue
        tensor = tensors[leg.parameter]
        vectors, block = block_vectors(leg, tensor if differentiable else tensor.detach(), group.n, dtype)
        add_blocks_(moments[0 if leg.power > 0 else 1], vectors @ vectors.mT, block)
    return moments[0], moments[1]


def cross_moments(leg: Leg, tensor: Tensor, other: Tensor, n: int, batch: int) -> Tensor:
    """Return Σ P P'ᵀ per block, (batch, n, n), float64, over the vectors of two tensors with the same leg."""
    vectors, block = block_vectors(leg, tensor.detach(), n)
    others, _ = block_vectors(leg, other.detach(), n)
    total = torch.zeros(batch, n, n, dtype=torch.float64, device=tensor.device)
    add_blocks_(total, vectors @ others.mT, block)
    return total


def block_vectors(leg: Leg, tensor: Tensor, n: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, np.ndarray]:
    """Return the vectors on which a matrix element acts, (copies, n, rest), and the block of each copy.

    Where the entries of the leg lie in order along one axis, as the heads of an attention do, nothing is gathered.
    """
    position, block = leg.positions(n)
    start = _run(leg, position)
    if start is not None:
        lines = tensor.movedim(leg.axes[0], 0).narrow(0, start, position.size)
        vectors = (
            lines.reshape(*position.shape, *lines.shape[1:]).flatten(2)
            if lines.ndim > 1
            else lines.view(*position.shape, 1)
        )
    else:
        lines = tensor.movedim(leg.axes, tuple(range(len(leg.axes)))).flatten(0, len(leg.axes) - 1)
        lines = lines.flatten(1) if lines.ndim > 1 else lines[:, None]
        vectors = lines[torch.from_numpy(position).to(tensor.device)]
    vectors = vectors.to(dtype)
    return (vectors + leg.offset if leg.offset else vectors), block


def add_block_vectors_(leg: Leg, target: Tensor, vectors: Tensor, factor: float) -> None:
    """Add ``factor`` times vectors, (copies, n, rest), to the entries that :func:`block_vectors` takes them from."""
    position, _ = leg.positions(vectors.shape[1])
    vectors = vectors.to(target.dtype)
    lines = target.movedim(leg.axes, tuple(range(len(leg.axes))))
    start = _run(leg, position)
    if start is not None:
        lines = lines.narrow(0, start, position.size)
        lines.add_(vectors.reshape(lines.shape), alpha=factor)
        return
    rest = lines.shape[len(leg.axes) :]
    whole = vectors.new_zeros(lines.shape).view(-1, *rest)
    whole[torch.from_numpy(position).to(target.device)] = vectors.reshape(*position.shape, *rest)
    lines.add_(whole.view(lines.shape), alpha=factor)


def _run(leg: Leg, position: np.ndarray) -> int | None:
    """Where the entries of a leg begin, if they lie in order along one axis."""
    if not leg.flat:
        return None
    flat = position.reshape(-1)
    start = int(flat[0])
    return start if bool((flat == np.arange(start, start + flat.size)).all()) else None


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
