"""A program that knows nothing of gaugefix: a LightningCLI of the package named first, then its arguments.

python any_cli.py pytorch_lightning fit --trainer.callbacks+=gaugefix.GaugeProjection
"""

import importlib
import json
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def model_class(pl):
    class Model(pl.LightningModule):
        """Two layers on noise."""

        def __init__(self, hidden: int = 8):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, 2))

        def training_step(self, batch, batch_idx):
            return self.net(batch[0]).square().mean()

        def train_dataloader(self):
            return DataLoader(TensorDataset(torch.randn(100, 4)), 5)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 1e-3)

    return Model


def main(package):
    pl, cli = importlib.import_module(package), importlib.import_module(f"{package}.cli")
    trainer = cli.LightningCLI(model_class(pl), save_config_callback=None).trainer
    report = {
        type(callback).__name__: {
            "every_n_steps": callback.every_n_steps,
            "steps": callback.steps,
            "history": [entry["step"] for entry in getattr(callback, "history", [])],
            "is one": isinstance(callback, pl.Callback),
        }
        for callback in trainer.callbacks
        if type(callback).__module__.startswith("gaugefix")
    }
    imported = [name for name in ("lightning.pytorch", "pytorch_lightning") if name in sys.modules]
    sys.stdout.write(json.dumps({"callbacks": report, "imported": imported}) + "\n")


if __name__ == "__main__":
    main(sys.argv.pop(1))
