"""Orbit drift as a metric."""

from __future__ import annotations

from torch import nn

from gaugefix.functional import drift
from gaugefix.metrics.gauge_metric import GaugeMetric


class OrbitDriftMetric(GaugeMetric):
    """Mean distance ‖log g*‖ to a slice along the orbit; see :func:`gaugefix.functional.drift`.

    Example:
        >>> import torch, gaugefix
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> metric = OrbitDriftMetric(gaugefix.discover(net, (torch.randn(3, 4),)))
        >>> metric.update(net)
        >>> metric.compute() > 0
        tensor(True)
    """

    def measure(self, model: nn.Module) -> float:
        return drift(model, self.gauge, self.slice).total
