"""A neural ODE that forecasts: its time is that of the series, and it is read at each sample."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import mse_loss

from gaugefix.demo.eeg import CHANNELS
from gaugefix.demo.neural_ode import NeuralODE
from gaugefix.errors import FieldError


class ODEForecaster(NeuralODE):
    """Mean squared error of the next samples, the k-th of which is read off the state at t = k/horizon.

    Args:
        past: samples that a forecast is made from.
        horizon: samples to forecast.
        channels: numbers per sample.
        **settings: see :class:`NeuralODE`.
    """

    def __init__(self, past: int = 8, horizon: int = 4, channels: int = CHANNELS, **settings: Any) -> None:
        super().__init__(inputs=past * channels, outputs=channels, horizon=horizon, **settings)
        self.save_hyperparameters()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.shape != targets.shape:
            raise FieldError(
                f"Expected targets of shape {tuple(outputs.shape)} for the model, got {tuple(targets.shape)}. "
                "Make past, horizon and channels of the model those of the data."
            )
        return mse_loss(outputs, targets)
