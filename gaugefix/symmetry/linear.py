"""Linear symmetries: a group acts on axes of parameters, as a vector here and as a covector there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gaugefix.errors import SymmetryError
from gaugefix.groups import DiagonalGroup, Group, MatrixGroup, Permutations
from gaugefix.symmetry.base import PARAMETER, SQUARED_GRADIENT, Part, Symmetry
from gaugefix.symmetry.leg import Leg


@dataclass(frozen=True, eq=False)
class LinearSymmetry(Symmetry):
    """A group acting on the legs of parameters.

    The contraction of a vector leg with a covector leg is unchanged: Σ_i (gP)_i (g⁻ᵀQ)_i = Σ_i P_i Q_i.

    Args:
        acting: the group.
        legs: where it acts.
        exact_part: for a dropout-free symmetry, the subgroup that is exact with dropout on.
        overlap: dimensions of the group that move nothing, left out of :attr:`dimension`.
    """

    acting: Group = field(kw_only=True)
    legs: tuple[Leg, ...] = field(kw_only=True)
    exact_part: tuple[Symmetry, ...] = field(default=(), kw_only=True)
    overlap: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if not self.legs:
            raise SymmetryError(f"Expected at least one leg for symmetry '{self.name}'. Leave the symmetry out.")
        for leg in self.legs:
            if int(leg.index.max()) >= self.acting.coordinates:
                raise SymmetryError(
                    f"Expected coordinates below {self.acting.coordinates} ({self.acting.symbol}) for the leg of "
                    f"'{self.name}' on '{leg.parameter}', got {int(leg.index.max())}. Give a larger group."
                )
            if not isinstance(self.acting, DiagonalGroup):
                if abs(leg.power) != 1:
                    raise SymmetryError(
                        f"Expected power 1 or -1 for the leg of '{self.name}' on '{leg.parameter}', got {leg.power}. "
                        "Only diagonal groups have other powers."
                    )
                leg.positions(self.block)

    @property
    def group(self) -> Group:
        return self.acting

    @property
    def dimension(self) -> int:
        return self.acting.dimension - self.overlap

    @property
    def block(self) -> int:
        """Number of coordinates that mix with each other."""
        if isinstance(self.acting, MatrixGroup):
            return self.acting.n
        return 1 if isinstance(self.acting, DiagonalGroup) else self.acting.coordinates

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(Part(leg.parameter, f"{leg.variance} on axis {','.join(map(str, leg.axes))}") for leg in self.legs)

    def act(self, tensors: Mapping[str, Tensor], value: Tensor) -> dict[str, Tensor]:
        return self.transport(tensors, value, PARAMETER)

    def transport(
        self, tensors: Mapping[str, Tensor], value: Tensor, law: int, at: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Move ``tensors`` (those present) by ``law``; the matrix on a leg does not depend on the parameters ``at``."""
        moved: dict[str, Tensor] = {}
        for leg in self.legs:
            tensor = moved.get(leg.parameter, tensors.get(leg.parameter))
            if tensor is not None:
                moved[leg.parameter] = self._move(leg, tensor, value, law)
        return moved

    def _move(self, leg: Leg, tensor: Tensor, value: Tensor, law: int) -> Tensor:
        value = value.to(tensor.device)
        if isinstance(self.acting, DiagonalGroup):
            factor = leg.spread(self.acting.factor(value, leg.power * law), 1.0).to(tensor.dtype)
            if leg.offset and law == PARAMETER:
                return (tensor + leg.offset) * factor - leg.offset
            return tensor * factor
        rows, restore = rows_of(leg, tensor)
        position, block = leg.places(self.block, tensor.device)
        offset = leg.offset if law == PARAMETER else 0.0
        whole = leg.in_order(self.block)
        vectors = rows.view(-1, *position.shape) if whole else rows[:, position]
        vectors = vectors + offset if offset else vectors
        if isinstance(self.acting, Permutations):
            mixed = vectors[..., value]
        else:
            assert isinstance(self.acting, MatrixGroup)
            matrix = self.acting.matrix(value, leg.power if law == PARAMETER else -leg.power)
            if law == SQUARED_GRADIENT:
                matrix = matrix.square()
            mixed = mix_blocks(matrix, vectors, block)
        mixed = mixed - offset if offset else mixed
        if whole:
            return restore(mixed.reshape(rows.shape)).contiguous()
        out = rows.clone()
        out[:, position.reshape(-1)] = mixed.reshape(rows.shape[0], -1)
        return restore(out)

    def vectors(self, leg: Leg, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors on which a matrix element acts, (rest, copies, n), and the block of each copy."""
        position, block = leg.places(self.block, tensor.device)
        return rows_of(leg, tensor.detach())[0][:, position], block


def mix_blocks(matrix: Tensor, vectors: Tensor, block: Tensor) -> Tensor:
    """Multiply (rest, copies, n) vectors by the matrices (batch, n, n) of their blocks, in the wider dtype."""
    work = torch.promote_types(vectors.dtype, matrix.dtype)
    chosen = matrix.to(work)[block]
    if vectors.shape[1] == 1:
        return (vectors[:, 0].to(work) @ chosen[0].mT)[:, None].to(vectors.dtype)
    return torch.einsum("mij,rmj->rmi", chosen, vectors.to(work)).to(vectors.dtype)


def rows_of(leg: Leg, tensor: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """View ``tensor`` as (rest, entries of the index), and the way back."""
    axes = [k for k, size in enumerate(leg.index.shape) if size > 1] or [leg.axis % leg.index.ndim]
    last = list(range(tensor.ndim - len(axes), tensor.ndim))
    moved = tensor.movedim(axes, last)
    shape = moved.shape

    def restore(rows: Tensor) -> Tensor:
        return rows.reshape(shape).movedim(last, axes)

    size = 1
    for k in axes:
        size *= tensor.shape[k]
    return moved.reshape(-1, size), restore
