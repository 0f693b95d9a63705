"""Scikit-learn's handwritten digits: 1797 images of 8 × 8 pixels, ten classes, shipped with the package."""

from __future__ import annotations

import torch
from torch.utils.data import TensorDataset

from gaugefix.demo.extras import require
from gaugefix.demo.in_memory import InMemoryData

CLASSES = 10
SIDE = 8
PIXELS = SIDE * SIDE


class DigitsData(InMemoryData):
    """Digits in memory, standardised by the mean and the deviation of the training part.

    Which images are for training depends on ``split_seed`` only. The order of the training batches depends on the
    seed of the run (``seed_everything``) only, and not on what else draws random numbers during training.

    Args:
        batch_size: images per training batch; an incomplete last batch is left out. Validation takes one batch.
        image: give images (n, 1, 8, 8) instead of vectors (n, 64).
        val_fraction: part of the images that is kept for validation.
        split_seed: seed of the split.
    """

    def __init__(
        self, batch_size: int = 64, image: bool = False, val_fraction: float = 0.2, split_seed: int = 0
    ) -> None:
        super().__init__(batch_size, val_fraction)
        self.image = image
        self.split_seed = split_seed

    def setup(self, stage: str | None = None) -> None:
        """Read and split the digits."""
        if self.train_data is not None:
            return
        digits = require("scikit-learn", "the digits data")
        del digits  # imported for its message; the submodule is what we use
        from sklearn.datasets import load_digits

        raw = load_digits()
        images = torch.from_numpy(raw.images).float()
        labels = torch.from_numpy(raw.target).long()
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(self.split_seed))
        val, train = order.tensor_split([round(self.val_fraction * len(labels))])
        images = (images - images[train].mean()) / images[train].std()
        images = images.unsqueeze(1) if self.image else images.flatten(1)
        self.train_data = TensorDataset(images[train], labels[train])
        self.val_data = TensorDataset(images[val], labels[val])
