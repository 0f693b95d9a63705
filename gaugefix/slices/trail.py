"""A trail along the orbit: parameters on the way, and the steps that were taken."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gaugefix.slices.base import require_finite
from gaugefix.symmetry import Element, GaugeGroup


class Trail:
    """Float64 copies of the parameters of a gauge group, moved step by step.

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
        require_finite(self.tensors)

    def go(self, name: str, value: Tensor) -> None:
        """Act with one element."""
        self.tensors.update(self.gauge[name].act(self.tensors, value))
        self.steps.append((name, value))

    def element(self) -> Element:
        """All steps so far."""
        return Element(tuple(self.steps))
