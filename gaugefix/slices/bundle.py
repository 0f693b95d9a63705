"""All shifts of a gauge group as one affine map, so that one system of equations settles them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gaugefix.slices.least_norm import is_statistic, least_squares
from gaugefix.symmetry import ShiftSymmetry


class Bundle:
    """Shifts move no weight, so that they commute and their coordinates together act affinely.

    Args:
        shifts: the families.
    """

    def __init__(self, shifts: Sequence[ShiftSymmetry]) -> None:
        self.shifts = tuple(shifts)
        self.sizes = [s.acting.n for s in self.shifts]
        self.reads = tuple(dict.fromkeys(name for s in self.shifts for name in s.reads))
        names = dict.fromkeys(name for s in self.shifts for name in s.parameters)
        self.counted = [name for name in names if not is_statistic(name)]

    def solve(self, tensors: Mapping[str, Tensor]) -> tuple[list[tuple[str, Tensor]], float]:
        """Return the steps to the least norm of everything that shifts, and their relative size ‖Jv‖/‖θ‖."""
        read = {name: tensors[name] for name in self.reads}
        device = next(iter(read.values())).device
        zero = torch.zeros(sum(self.sizes), dtype=torch.float64, device=device)

        def moved(v: Tensor) -> tuple[Tensor, ...]:
            state = self.move(read, self.split(v))
            return tuple(state[name] for name in self.counted)

        v, size = least_squares(moved, zero)
        return self.split(v), size

    def split(self, v: Tensor) -> list[tuple[str, Tensor]]:
        """One step for each family."""
        parts = torch.split(v, self.sizes)
        return [(s.name, part) for s, part in zip(self.shifts, parts, strict=True)]

    def move(self, tensors: Mapping[str, Tensor], steps: Sequence[tuple[str, Tensor]]) -> dict[str, Tensor]:
        """``tensors`` after the steps."""
        state = dict(tensors)
        for s, (_, value) in zip(self.shifts, steps, strict=True):
            state.update(s.act(state, value))
        return state
