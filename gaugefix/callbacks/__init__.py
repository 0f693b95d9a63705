"""Lightning callbacks: when to project and when to measure. What is done lives in the other rooms."""

from gaugefix.callbacks.gauge_cache import use_gauge
from gaugefix.callbacks.gauge_projection import GaugeProjection
from gaugefix.callbacks.gauge_regularizer import GaugeRegularizer
from gaugefix.callbacks.lightning_callback import adopt
from gaugefix.callbacks.noether_charges import NoetherCharges
from gaugefix.callbacks.orbit_drift import OrbitDrift
from gaugefix.callbacks.vertical_fraction import VerticalFraction

__all__ = [
    "GaugeProjection",
    "GaugeRegularizer",
    "NoetherCharges",
    "OrbitDrift",
    "VerticalFraction",
    "adopt",
    "use_gauge",
]
