"""GaugeMetric: the mean of a number read off a model, over all updates."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from gaugefix.slices import get_slice
from gaugefix.symmetry import GaugeGroup


class GaugeMetric(Metric, ABC):
    """Shell around a function of ``gaugefix.functional``.

    Args:
        gauge: the group of the models that will be measured.
        slice: name of a slice.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, gauge: GaugeGroup, slice: str = "minimal_norm") -> None:
        super().__init__()
        get_slice(slice)
        self.gauge = gauge
        self.slice = slice
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @abstractmethod
    def measure(self, model: nn.Module) -> float | None:
        """Return the number for ``model``, or None if there is none yet."""

    def update(self, model: nn.Module) -> None:
        """Measure ``model``."""
        value = self.measure(model)
        if value is not None:
            self.total = self.total + value
            self.count = self.count + 1

    def compute(self) -> Tensor:
        """Return the mean, a float64 scalar; NaN if nothing was measured."""
        return self.total / self.count
