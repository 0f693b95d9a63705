"""Gauge metrics as functions; the torchmetrics shells are in ``gaugefix.metrics``."""

from gaugefix.functional.drift import Drift, drift, log_norms

__all__ = ["Drift", "drift", "log_norms"]
