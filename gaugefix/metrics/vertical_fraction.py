"""Vertical fraction as a metric."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gaugefix.functional.orbit_tangent import OrbitTangent
from gaugefix.functional.vertical_fraction import counted_names
from gaugefix.metrics.gauge_metric import GaugeMetric
from gaugefix.symmetry import GaugeGroup


class VerticalFractionMetric(GaugeMetric):
    """Mean vertical fraction of the motion from one update to the next.

    See :func:`gaugefix.functional.vertical_fraction`; the first update after a reset is the point to start from, of
    which a copy of parameters and buffers is kept.

    Args:
        gauge: the group of the models that will be measured.
    """

    _before: dict[str, Tensor] | None = None
    starts: Tensor

    def __init__(self, gauge: GaugeGroup) -> None:
        super().__init__(gauge)
        # Also keeps a MetricCollection from taking this metric and StepDrift, both still empty, for one.
        self.add_state("starts", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def measure(self, model: nn.Module) -> float | None:
        read = self.gauge.check(model)
        now = {**dict(model.named_parameters()), **read}
        before, self._before = self._before, {name: tensor.detach().clone() for name, tensor in now.items()}
        if before is None:
            self.starts = self.starts + 1
            return None
        counted = counted_names(model, self.gauge)
        moved = {
            name: tensor.detach().double() - before[name].double()
            for name, tensor in now.items()
            if name in counted or name not in read
        }
        return OrbitTangent(self.gauge, before, counted).fraction(moved)

    def reset(self) -> None:
        """Forget everything, the starting point too."""
        super().reset()
        self._before = None
