"""Two spirals in the plane, one for each class: a task that lines cannot solve."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from gaugefix.demo.in_memory import InMemoryData, check_count


class SpiralData(InMemoryData):
    """Points on two spiral arms with noise; the class is the arm.

    Which points there are depends on ``data_seed`` only, the order of the training batches on the seed of the run.

    Args:
        batch_size: points per training batch.
        points: in all.
        turns: of each arm around the centre.
        noise: standard deviation of the distance from the arm; the arms end at radius 1.
        val_fraction: part of the points that is kept for validation.
        data_seed: of the points.
    """

    method_prefix = "spiral_"

    def __init__(
        self,
        batch_size: int = 64,
        points: int = 1500,
        turns: float = 1.0,
        noise: float = 0.03,
        val_fraction: float = 0.2,
        data_seed: int = 0,
    ) -> None:
        super().__init__(batch_size, val_fraction)
        check_count("points", points, 1500)
        if turns <= 0 or noise < 0:
            raise ValueError(f"Expected turns > 0 and noise >= 0, got {turns} and {noise}. 1 and 0.03 are usual.")
        self.points, self.turns, self.noise, self.data_seed = points, turns, noise, data_seed

    def setup(self, stage: str | None = None) -> None:
        """Draw the points."""
        if self.train_data is not None:
            return
        x, y = spirals(self.points, self.turns, self.noise, self.data_seed)
        val, train = torch.arange(self.points).tensor_split([round(self.val_fraction * self.points)])
        self.train_data = TensorDataset(x[train], y[train])
        self.val_data = TensorDataset(x[val], y[val])


def spirals(points: int, turns: float, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return points (points, 2) and the arm that each is on (points,), 0 or 1.

    The arms are r = s, φ = 2π·turns·s + π·arm, with s² uniform on [0.01, 1], so that they are about evenly filled.

    Args:
        points: how many.
        turns: of each arm.
        noise: standard deviation of what is added to both coordinates.
        seed: of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    arm = torch.randint(0, 2, (points,), generator=generator)
    radius = (0.01 + 0.99 * torch.rand(points, generator=generator)).sqrt()
    angle = 2 * math.pi * turns * radius + math.pi * arm
    clean = radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    return clean + noise * torch.randn(points, 2, generator=generator), arm
