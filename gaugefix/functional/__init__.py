"""Gauge metrics as functions; the torchmetrics shells are in ``gaugefix.metrics``."""

from gaugefix.functional.charge_decay import ChargeDecay, charge_decay
from gaugefix.functional.distance import Distance, distance
from gaugefix.functional.drift import Drift, distances, drift, log_norms
from gaugefix.functional.noether_charge import charge_norm, noether_charge
from gaugefix.functional.slice_residual import slice_residual
from gaugefix.functional.step_drift import step_drift
from gaugefix.functional.vertical_fraction import vertical_fraction, vertical_part

__all__ = [
    "ChargeDecay",
    "Distance",
    "Drift",
    "charge_decay",
    "charge_norm",
    "distance",
    "distances",
    "drift",
    "log_norms",
    "noether_charge",
    "slice_residual",
    "step_drift",
    "vertical_fraction",
    "vertical_part",
]
