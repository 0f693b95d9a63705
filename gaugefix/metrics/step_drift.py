"""Step drift as a metric."""

from __future__ import annotations

from torch import nn

from gaugefix.functional import distances, drift
from gaugefix.metrics.gauge_metric import GaugeMetric
from gaugefix.symmetry import Element


class StepDrift(GaugeMetric):
    """Mean motion along the orbit from one update to the next; see :func:`gaugefix.functional.step_drift`.

    The first update after a reset is the point to start from. What is kept of it is its element of the group, which
    is much smaller than its parameters.
    """

    _before: Element | None = None

    def measure(self, model: nn.Module) -> float | None:
        before, self._before = self._before, drift(model, self.gauge, self.slice).element
        return None if before is None else sum(distances(self.gauge, before, self._before).values()) ** 0.5

    def reset(self) -> None:
        """Forget everything, the starting point too."""
        super().reset()
        self._before = None
