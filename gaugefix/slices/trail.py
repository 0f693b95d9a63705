"""A trail along the orbit: parameters on the way, and the steps that were taken."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gaugefix.groups import DiagonalGroup, Permutations
from gaugefix.slices.base import require_finite
from gaugefix.symmetry import Element, GaugeGroup, LinearSymmetry, Symmetry


class Trail:
    """Float64 copies of the parameters of a gauge group, moved step by step.

    A step is composed with an earlier one of its symmetry where everything in between commutes with it, so that the
    element stays short.

    Args:
        gauge: the group.
        tensors: parameters and buffers by name; they stay as they are.

    Raises:
        NonFiniteError: if one holds NaN or infinity.
    """

    def __init__(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> None:
        self.gauge = gauge
        self.eps = max(
            (torch.finfo(tensors[n].dtype).eps for n in gauge.shapes if tensors[n].is_floating_point()), default=0.0
        )
        self.tensors = {name: tensors[name].detach().double() for name in gauge.shapes}
        self.steps: list[tuple[str, Tensor]] = []
        self.unfixed: tuple[str, ...] = ()
        require_finite(self.tensors)

    def go(self, name: str, value: Tensor) -> None:
        """Act with one element."""
        symmetry = self.gauge[name]
        self.tensors.update(symmetry.act(self.tensors, value))
        for k in reversed(range(len(self.steps))):
            before, earlier = self.steps[k]
            if before == name and isinstance(symmetry, LinearSymmetry):
                self.steps[k] = (name, symmetry.group.compose(value, earlier))
                return
            if not commute(symmetry, self.gauge[before]):
                break
        self.steps.append((name, value))

    def element(self) -> Element:
        """All steps so far."""
        return Element(tuple(self.steps))


def acted(gauge: GaugeGroup, tensors: Mapping[str, Tensor], element: Element) -> dict[str, Tensor]:
    """The parameters where ``element`` leads, in float64."""
    moved = {name: tensors[name].detach().double() for name in gauge.shapes}
    for name, value in element.steps:
        moved.update(gauge[name].act(moved, value))
    return moved


def commute(one: Symmetry, two: Symmetry) -> bool:
    """Whether two linear symmetries surely commute: no parameter or no axis of one in common, or both diagonal."""
    if not isinstance(one, LinearSymmetry) or not isinstance(two, LinearSymmetry):
        return False
    if isinstance(one.group, DiagonalGroup) and isinstance(two.group, DiagonalGroup):
        return True
    shared = [(p, q) for p in one.legs for q in two.legs if p.parameter == q.parameter]
    if any(isinstance(s.group, Permutations) for s in (one, two)):
        return not shared
    return not any(set(p.axes) & set(q.axes) and bool(((p.index >= 0) & (q.index >= 0)).any()) for p, q in shared)
