"""Data that fit into memory, in batches whose order depends on the seed of the run only."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset


class InMemoryData(LightningDataModule):
    """Batches of ``train_data`` and ``val_data``, which ``setup`` of a subclass makes.

    The order of the training batches depends on the seed of the run (``seed_everything``) only, and not on what else
    draws random numbers during training. An incomplete last training batch is left out.

    Args:
        batch_size: rows per training batch.
        val_fraction: part of the rows that is kept for validation.
        val_batch_size: rows per validation batch; all by default.
    """

    method_prefix: str = ""
    """Before the name of a method in results, where one recipe has several data sets."""

    usual_batch_size, usual_val_fraction = 64, 0.2
    """What errors recommend."""

    def __init__(self, batch_size: int, val_fraction: float, val_batch_size: int | None = None) -> None:
        super().__init__()
        check_count("batch_size", batch_size, self.usual_batch_size)
        if not 0 < val_fraction < 1:
            raise ValueError(
                f"Expected a number between 0 and 1 for val_fraction, got {val_fraction}. "
                f"{self.usual_val_fraction} is usual."
            )
        self.batch_size = batch_size
        self.val_fraction = val_fraction
        self.val_batch_size = val_batch_size
        self.train_data: TensorDataset | None = None
        self.val_data: TensorDataset | None = None

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        data = self._ready(self.train_data)
        order = RandomSampler(data, generator=torch.Generator().manual_seed(torch.initial_seed()))
        # Whole batches are indexed at once: no collation of single rows.
        return DataLoader(data, sampler=BatchSampler(order, self.batch_size, drop_last=True), batch_size=None)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        data = self._ready(self.val_data)
        batches = BatchSampler(range(len(data)), self.val_batch_size or len(data), drop_last=False)
        return DataLoader(data, sampler=batches, batch_size=None)

    def _ready(self, data: TensorDataset | None) -> TensorDataset:
        if data is None:
            raise RuntimeError("Expected setup() before a dataloader is asked for, got none. Call setup() first.")
        return data


def check_count(name: str, value: int, usual: int) -> None:
    """Raise a ValueError that names the setting if ``value`` is not positive."""
    if value < 1:
        raise ValueError(f"Expected a positive integer for {name}, got {value}. {usual} is usual.")
