"""A small convolutional network with BatchNorm and residual blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gaugefix.demo.classifier import Classifier, OptimizerName
from gaugefix.demo.digits import CLASSES, SIDE


class ResidualBlock(nn.Module):
    """relu(x + BN(conv(relu(BN(conv(x)))))).

    The inner channels have a scale each that nothing outside the block sees.

    Args:
        width: channels in, inside and out.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.norm2(self.conv2(inner)))


class ResidualCNN(Classifier):
    """A stem, residual blocks, the mean over pixels, and a linear layer.

    Args:
        width: channels.
        blocks: residual blocks; the first half works on 8 × 8 pixels, the rest on 4 × 4.
        lr: learning rate.
        optimizer: adam, adamw, or sgd with momentum.
        weight_decay: of the optimizer.
        momentum: of sgd; the others ignore it.
    """

    method_prefix = "cnn_"

    def __init__(
        self,
        width: int = 16,
        blocks: int = 2,
        lr: float = 0.05,
        optimizer: OptimizerName = "sgd",
        weight_decay: float = 0.0,
        momentum: float = 0.9,
    ) -> None:
        stem = [nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        fine = [ResidualBlock(width) for _ in range(blocks // 2)]
        coarse = [ResidualBlock(width) for _ in range(blocks - blocks // 2)]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES)]
        net = nn.Sequential(*stem, *fine, nn.AvgPool2d(2), *coarse, *head)
        example = torch.linspace(-1, 2, 4 * SIDE * SIDE).reshape(4, 1, SIDE, SIDE)
        super().__init__(net, example, lr, optimizer, weight_decay, momentum)
        self.save_hyperparameters()
