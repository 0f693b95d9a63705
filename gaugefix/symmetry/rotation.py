"""Rotations of a residual stream whose norms keep their gains.

A norm x̂ = x/rms(x) commutes with R ∈ O(d), a layer norm with those R that keep the ones. Behind the gain,
y = γ⊙x̂ + β, the same rotation acts as g = γRγ⁻¹: readers move by W → W g⁻¹ and β by gβ, while γ stays as it is and no
parameter is absorbed (docs/concepts/gauge_groups.md). Exact wherever no γ_i is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from gaugefix.errors import SymmetryError
from gaugefix.groups import Orthogonal
from gaugefix.symmetry.base import PARAMETER, SQUARED_GRADIENT, Part, Symmetry
from gaugefix.symmetry.leg import Index, Leg, frozen_index
from gaugefix.symmetry.linear import mix_blocks, rows_of


@dataclass(frozen=True, eq=False)
class Gain:
    """The gain of a norm.

    Args:
        parameter: its name.
        order: (n,) which of its entries belongs to each coordinate of the rotation.
        offset: constant added to it (the 1 of a gain 1 + γ).
    """

    parameter: str
    order: Index
    offset: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", frozen_index(self.order))

    def values(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """γ in the order of the coordinates, float64.

        Raises:
            SymmetryError: if an entry is zero: the rotation has no conjugate there.
        """
        gain = tensors[self.parameter].double().reshape(-1)[torch.from_numpy(self.order.copy())] + self.offset
        if not torch.compiler.is_compiling() and bool((gain.detach() == 0).any()):
            raise SymmetryError(
                f"Expected gains other than 0 in '{self.parameter}', got {int((gain == 0).sum())} zeros. Rotations of "
                "the residual stream cannot pass them: leave the rotation out with gauge.select."
            )
        return gain


@dataclass(frozen=True, eq=False)
class ResidualRotation(Symmetry):
    """R acts on the legs in front of the norms, γRγ⁻¹ on those behind.

    Args:
        acting: O(n), with ``fixes_ones`` where a norm takes the mean.
        legs: each with the gain that it lies behind, or ``None``.
    """

    acting: Orthogonal = field(kw_only=True)
    legs: tuple[tuple[Leg, Gain | None], ...] = field(kw_only=True)

    def __post_init__(self) -> None:
        for leg, _ in self.legs:
            leg.positions(self.acting.n)

    @property
    def group(self) -> Orthogonal:
        return self.acting

    @property
    def conditional(self) -> bool:
        return any(gain is not None for _, gain in self.legs)

    def strain(self, tensors: Mapping[str, Tensor], value: Tensor) -> float:
        """The largest ratio of two gains of one norm: γRγ⁻¹ divides by the smallest."""
        gains = [gain.values(tensors).detach().abs() for _, gain in self.legs if gain is not None]
        return max((float(gain.max() / gain.min()) for gain in gains), default=1.0)

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(
            Part(
                leg.parameter,
                f"{leg.variance} on axis {','.join(map(str, leg.axes))}"
                + (f", conjugated by {gain.parameter}" if gain is not None else ""),
            )
            for leg, gain in self.legs
        )

    @cached_property
    def reads(self) -> tuple[str, ...]:
        gains = [gain.parameter for _, gain in self.legs if gain is not None]
        return tuple(dict.fromkeys([*self.parameters, *gains]))

    def act(self, tensors: Mapping[str, Tensor], value: Tensor) -> dict[str, Tensor]:
        return self._along(tensors, value, PARAMETER, tensors)

    def transport(
        self, tensors: Mapping[str, Tensor], value: Tensor, law: int, at: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """As the base class; squared gradients move by the square of the matrix of their leg, those of gains stay."""
        if law == SQUARED_GRADIENT:
            return self._along(tensors, value, law, at)
        return super().transport(tensors, value, law, at)

    def _along(
        self, tensors: Mapping[str, Tensor], value: Tensor, law: int, at: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        moved: dict[str, Tensor] = {}
        gains = {gain.parameter: gain.values(at) for _, gain in self.legs if gain is not None}
        for leg, gain in self.legs:
            tensor = moved.get(leg.parameter, tensors.get(leg.parameter))
            if tensor is None:
                continue
            matrix = value.to(tensor.device)
            if gain is not None:
                scale = gains[gain.parameter].to(tensor.device)
                scale = scale if leg.power * (1 if law == PARAMETER else -1) > 0 else scale.reciprocal()
                matrix = scale[:, None] * matrix / scale
            moved[leg.parameter] = self._mix(leg, tensor, matrix.square() if law == SQUARED_GRADIENT else matrix)
        return moved

    def _mix(self, leg: Leg, tensor: Tensor, matrix: Tensor) -> Tensor:
        rows, restore = rows_of(leg, tensor)
        position, block = leg.places(self.acting.n, tensor.device)
        out = rows.clone()
        mixed = mix_blocks(matrix, rows[:, position], block)
        out[:, position.reshape(-1)] = mixed.reshape(rows.shape[0], -1)
        return restore(out)
