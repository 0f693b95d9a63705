"""Gauge metrics for torchmetrics; what they measure is in ``gaugefix.functional``."""

from gaugefix.metrics.noether_charge import NoetherCharge
from gaugefix.metrics.orbit_drift import OrbitDriftMetric
from gaugefix.metrics.slice_residual import SliceResidual
from gaugefix.metrics.step_drift import StepDrift
from gaugefix.metrics.vertical_fraction import VerticalFractionMetric

__all__ = ["NoetherCharge", "OrbitDriftMetric", "SliceResidual", "StepDrift", "VerticalFractionMetric"]
