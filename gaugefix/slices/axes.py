"""Principal axes: the rotation that makes a second moment diagonal, with decreasing entries.

Where entries coincide, the axes between them are not determined. They are then turned as little as possible, so that a
point on the slice stays where it is; such a point is not unique on its orbit.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gaugefix.groups import ComplexScaling, GeneralLinear, MatrixGroup, Orthogonal
from gaugefix.slices.block import full_rank
from gaugefix.slices.parallel import over_batch
from gaugefix.slices.second_moment import second_moments
from gaugefix.symmetry import LinearSymmetry


def principal_axes(moment: Tensor, eps: float) -> Tensor:
    """Return Q with QSQᵀ = diag(s), s decreasing, per block; signs of the rows as near to the unit matrix as possible.

    Args:
        moment: S, symmetric, (batch, n, n), float64.
        eps: relative precision of S: entries nearer than 10 eps s₁ count as equal.
    """
    values, vectors = over_batch(lambda part: tuple(torch.linalg.eigh(part)), moment)
    values, vectors = values.flip(-1), vectors.flip(-1)
    gaps = -values.diff(dim=-1)
    equal = gaps <= 10.0 * eps * values[:, :1]
    if bool(equal.any()):
        vectors = vectors.clone()
        for block in equal.any(-1).nonzero()[:, 0].tolist():
            for first, last in _clusters(equal[block].tolist()):
                inside = vectors[block, :, first:last]
                u, _, vh = torch.linalg.svd(inside[first:last].T)
                vectors[block, :, first:last] = inside @ (u @ vh)
    signs = torch.where(vectors.diagonal(dim1=-2, dim2=-1) < 0.0, -1.0, 1.0)
    return (vectors * signs[:, None, :]).mT


def _clusters(equal: list[bool]) -> list[tuple[int, int]]:
    """Ranges of at least two neighbours that are equal."""
    found: list[tuple[int, int]] = []
    first = 0
    for k, same in enumerate([*equal, False]):
        if not same:
            if k > first:
                found.append((first, k + 1))
            first = k + 1
    return found


def helmert(n: int) -> Tensor:
    """An orthonormal basis of R^n whose last vector is (1, …, 1)/√n, as columns, (n, n), float64."""
    basis = torch.zeros(n, n, dtype=torch.float64)
    for k in range(1, n):
        basis[:k, k - 1], basis[k, k - 1] = 1.0, -float(k)
    basis[:, -1] = 1.0
    columns: Tensor = basis / basis.norm(dim=0)
    return columns


def within_ones(moment: Tensor, eps: float, fixes_ones: bool) -> Tensor:
    """As :func:`principal_axes`; with ``fixes_ones`` the axes are those of the Helmert basis, and (1, …, 1) stays."""
    if not fixes_ones:
        return principal_axes(moment, eps)
    n = moment.shape[-1]
    basis = helmert(n).to(moment.device)
    inner = (basis.mT @ moment @ basis)[:, :-1, :-1]
    turn = torch.eye(n, dtype=moment.dtype, device=moment.device).repeat(moment.shape[0], 1, 1)
    if n > 1:
        turn[:, :-1, :-1] = principal_axes(inner, eps)
    return basis @ turn @ basis.mT


def turned_moment(symmetry: LinearSymmetry, tensors: Mapping[str, Tensor]) -> Tensor:
    """The second moment over all legs: rotations move vectors and covectors alike, (batch, n, n)."""
    vectors, covectors = second_moments(symmetry, tensors)
    return vectors + covectors


def has_axes(symmetry: object) -> bool:
    """Whether minimal norm leaves a rotation free."""
    groups = (ComplexScaling, GeneralLinear, Orthogonal)
    return isinstance(symmetry, LinearSymmetry) and isinstance(symmetry.group, groups)


def axes(symmetry: LinearSymmetry, tensors: Mapping[str, Tensor], eps: float, whole: bool) -> Tensor:
    """Return the rotation of every block onto principal axes; blocks of GL without full rank stay, unless ``whole``.

    A rotation of a plane is fixed by its second moment up to half a turn.
    """
    group = symmetry.group
    assert isinstance(group, MatrixGroup)
    moment = turned_moment(symmetry, tensors)
    turn = within_ones(moment, eps, isinstance(group, Orthogonal) and group.fixes_ones)
    eye = group.identity(device=moment.device)
    if isinstance(group, ComplexScaling):
        mirrored = torch.linalg.det(turn) < 0.0  # a plane may not be mirrored: the second axis follows the first
        flip = turn.new_tensor([1.0, -1.0])
        turn = torch.where(mirrored[:, None, None], flip[:, None] * turn, turn)
        keep = moment.diagonal(dim1=-2, dim2=-1).sum(-1) == 0.0
    elif isinstance(group, GeneralLinear) and not whole:
        vectors, covectors = second_moments(symmetry, tensors)
        keep = ~(full_rank(vectors) & full_rank(covectors))
    else:
        keep = torch.zeros(group.batch, dtype=torch.bool, device=moment.device)
    return torch.where(keep[:, None, None], eye, turn)
