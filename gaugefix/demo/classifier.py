"""The training of a small image classifier, whatever its network."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

OptimizerName = Literal["adam", "adamw", "sgd"]


class Classifier(LightningModule):
    """Cross entropy on the outputs of ``net``; logs ``train/loss``, ``val/loss`` and ``val/acc``.

    Args:
        net: maps a batch of inputs to logits (n, classes).
        example: an input batch, from which gaugefix reads the shapes.
        lr: learning rate.
        optimizer: adam, adamw, or sgd with momentum.
        weight_decay: of the optimizer.
        momentum: of sgd; the others ignore it.
    """

    example_input_array: Tensor
    method_prefix: ClassVar[str] = ""
    """Before the name of a method in results, where one recipe has several networks."""
    monitor: ClassVar[str] = "val/acc"
    monitor_mode: ClassVar[str] = "max"

    def __init__(
        self,
        net: nn.Module,
        example: Tensor,
        lr: float,
        optimizer: OptimizerName,
        weight_decay: float,
        momentum: float,
    ) -> None:
        super().__init__()
        self.net = net
        self.example_input_array = example
        self.lr = lr
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.momentum = momentum

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = cross_entropy(self(x), y)
        self.log("train/loss", loss, batch_size=len(y))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        logits = self(x)
        self.log("val/loss", cross_entropy(logits, y), batch_size=len(y))
        self.log("val/acc", (logits.argmax(1) == y).float().mean(), batch_size=len(y), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.optimizer == "sgd":
            return torch.optim.SGD(
                self.parameters(), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay
            )
        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.AdamW
        return kind(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)
