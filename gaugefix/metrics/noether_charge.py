"""Noether charge as a metric."""

from __future__ import annotations

from torch import nn

from gaugefix.functional import charge_norm, noether_charge
from gaugefix.metrics.gauge_metric import GaugeMetric
from gaugefix.symmetry import GaugeGroup


class NoetherCharge(GaugeMetric):
    """Mean norm ‖q‖ of all Noether charges; see :func:`gaugefix.functional.noether_charge`.

    Args:
        gauge: the group of the models that will be measured.
    """

    def __init__(self, gauge: GaugeGroup) -> None:
        super().__init__(gauge)

    def measure(self, model: nn.Module) -> float:
        return charge_norm(noether_charge(model, self.gauge))
