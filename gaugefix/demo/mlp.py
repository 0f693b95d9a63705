"""A multilayer perceptron with biases."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from gaugefix.demo.classifier import Classifier, OptimizerName
from gaugefix.demo.digits import CLASSES, PIXELS


class MLP(Classifier):
    """Linear layers with ReLU between them, on flat images: one redundant dimension per hidden unit.

    Args:
        widths: units of each hidden layer.
        lr: learning rate.
        optimizer: adam, adamw, or sgd with momentum.
        weight_decay: of the optimizer.
        momentum: of sgd; the others ignore it.
    """

    def __init__(
        self,
        widths: Sequence[int] = (256, 256, 256, 256),
        lr: float = 0.03,
        optimizer: OptimizerName = "sgd",
        weight_decay: float = 0.0,
        momentum: float = 0.9,
    ) -> None:
        layers: list[nn.Module] = []
        sizes = [PIXELS, *widths]
        for size_in, size_out in zip(sizes, widths, strict=False):
            layers += [nn.Linear(size_in, size_out), nn.ReLU()]
        layers.append(nn.Linear(sizes[-1], CLASSES))
        example = torch.linspace(-1, 2, 4 * PIXELS).reshape(4, PIXELS)
        super().__init__(nn.Sequential(*layers), example, lr, optimizer, weight_decay, momentum)
        self.save_hyperparameters()
