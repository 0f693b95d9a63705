"""Slice residual as a metric."""

from __future__ import annotations

from torch import nn

from gaugefix.functional import slice_residual
from gaugefix.metrics.gauge_metric import GaugeMetric


class SliceResidual(GaugeMetric):
    """Mean residual of a slice, 0 exactly on it; see :func:`gaugefix.functional.slice_residual`."""

    def measure(self, model: nn.Module) -> float:
        return slice_residual(model, self.gauge, self.slice)
