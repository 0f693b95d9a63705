"""Trains on two processes with DDP and prints how much they differ: run by test_ddp.py."""

import json
import sys

import lightning.pytorch as pl
import torch
from torch import distributed, nn
from torch.utils.data import DataLoader, TensorDataset

from gaugefix import GaugeProjection, GaugeRegularizer, OrbitDrift


class Model(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
        with torch.no_grad():
            self.net[0].weight.mul_(4.0)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return self(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


class Report(pl.Callback):
    def on_train_end(self, trainer, pl_module):
        flat = torch.cat([p.detach().reshape(-1) for p in pl_module.parameters()])
        others = [torch.empty_like(flat) for _ in range(2)]
        distributed.all_gather(others, flat)
        states = [s[key].reshape(-1) for s in trainer.optimizers[0].state.values() for key in ("exp_avg", "exp_avg_sq")]
        moments = torch.cat(states)
        gathered = [torch.empty_like(moments) for _ in range(2)]
        distributed.all_gather(gathered, moments)
        projection, drift = trainer.callbacks[:2]
        if trainer.is_global_zero:
            report = {
                "difference": float((others[0] - others[1]).abs().max()),
                "difference of states": float((gathered[0] - gathered[1]).abs().max()),
                "history": projection.history,
                "rolled_back": projection.rolled_back,
                "drift": drift.last.total,
            }
            sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    torch.manual_seed(0)
    data = DataLoader(TensorDataset(torch.randn(160, 4)), 5)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_fork",
        max_steps=8,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            GaugeProjection(every_n_steps=3),
            OrbitDrift(every_n_steps=6),
            Report(),
            GaugeRegularizer("charge", 0.1),
        ],
    )
    trainer.fit(Model(), data)
