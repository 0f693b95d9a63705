"""A neural ODE that classifies."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torch.nn.functional import cross_entropy

from gaugefix.demo.digits import CLASSES, PIXELS
from gaugefix.demo.neural_ode import NeuralODE


class ODEClassifier(NeuralODE):
    """Cross entropy on the output at t = 1; logs ``val/acc`` too.

    Args:
        inputs: numbers per input; 64 pixels of a digit, 2 coordinates of a point.
        classes: how many there are.
        **settings: see :class:`NeuralODE`.
    """

    monitor: ClassVar[str] = "val/acc"
    monitor_mode: ClassVar[str] = "max"

    def __init__(self, inputs: int = PIXELS, classes: int = CLASSES, **settings: Any) -> None:
        super().__init__(inputs=inputs, outputs=classes, horizon=None, **settings)
        self.save_hyperparameters()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets)

    def log_outputs(self, outputs: Tensor, targets: Tensor) -> None:
        hits = (outputs.argmax(1) == targets).float().mean()
        self.log("val/acc", hits, batch_size=len(targets), prog_bar=True)
