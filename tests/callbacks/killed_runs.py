"""Train, be killed by SIGKILL in mid-run, resume from the last checkpoint, and compare: run by test_killed_runs.py."""

import json
import os
import signal
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import distributed, nn
from torch.utils.data import DataLoader, TensorDataset

from gaugefix import GaugeProjection, GaugeRegularizer, OrbitDrift
from gaugefix.demo.jsonl_logger import JsonlLogger

STEPS, KILLED_AT, SAVED_EVERY = 14, 8, 3
SETTINGS = {"SGD": {"lr": 0.05, "momentum": 0.9}, "AdamW": {"lr": 0.01}, "Muon": {"lr": 0.01}}


class Model(pl.LightningModule):
    def __init__(self, optimizer):
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Linear(4, 9, bias=False), nn.ReLU(), nn.Linear(9, 7, bias=False), nn.ReLU()]  # Muon: matrices only
        self.net = nn.Sequential(*layers, nn.Linear(7, 2, bias=False))
        self.optimizer = optimizer
        self.example_input_array = torch.ones(3, 4)
        with torch.no_grad():
            self.net[0].weight.mul_(4.0)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = (part[self.global_rank :: self.trainer.world_size] for part in batch)
        return nn.functional.cross_entropy(self(x), y)

    def configure_optimizers(self):
        return getattr(torch.optim, self.optimizer)(self.parameters(), **SETTINGS[self.optimizer])


class Killed(pl.Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)


class Final(pl.Callback):
    """Writes down what there is at the end, from the first process; says how much the others differ."""

    def __init__(self, path):
        self.path = path

    def on_train_end(self, trainer, pl_module):
        states = [s[key] for s in trainer.optimizers[0].state.values() for key in sorted(s)]
        tensors = [t.detach().float().reshape(-1) for t in (*pl_module.parameters(), *states)]
        flat = torch.cat(tensors)
        if distributed.is_initialized():
            others = [torch.empty_like(flat) for _ in range(distributed.get_world_size())]
            distributed.all_gather(others, flat)
            assert all(torch.equal(flat, other) for other in others)
        if trainer.is_global_zero:
            projection = next(c for c in trainer.callbacks if isinstance(c, GaugeProjection))
            drift = next(c for c in trainer.callbacks if isinstance(c, OrbitDrift))
            torch.save((flat, projection.history, drift.last.total, drift.steps), self.path)


def fit(optimizer, folder, strategy, *more, resume=False):
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1)).repeat(40, 1)  # one batch again and again
    keep = ModelCheckpoint(folder / "checkpoints", filename="{step}", every_n_train_steps=SAVED_EVERY, save_top_k=-1)
    acting = [GaugeProjection(every_n_steps=4), GaugeRegularizer("charge", 0.05), OrbitDrift(every_n_steps=2)]
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2 if strategy else 1,
        strategy=strategy or "auto",
        max_steps=STEPS,
        use_distributed_sampler=False,  # every process takes its rows of the one batch
        logger=JsonlLogger(folder / f"logs{int(resume)}"),
        log_every_n_steps=1,
        callbacks=[*acting, keep, Final(folder / "final.pt"), *more],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    saved = folder / "checkpoints" / f"step={KILLED_AT // SAVED_EVERY * SAVED_EVERY}.ckpt"
    loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 8)
    trainer.fit(Model(optimizer), loader, ckpt_path=saved if resume else None, weights_only=True if resume else None)


def until_killed(optimizer, folder, strategy):
    """Train in a process that is killed; return how it ended."""
    if strategy:
        try:
            fit(optimizer, folder, strategy, Killed())
        except Exception as reason:  # the launcher says that its process is gone
            return type(reason).__name__
        return "not killed"
    child = os.fork()
    if not child:
        fit(optimizer, folder, strategy, Killed())
        os._exit(0)
    return -os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def rows(folder, name):
    lines = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    return [row for row in lines if row["step"] > KILLED_AT // SAVED_EVERY * SAVED_EVERY]


def compare(optimizer, folder, strategy):
    ended = until_killed(optimizer, folder / "killed", strategy)
    left = sorted(path.name for path in (folder / "killed" / "checkpoints").iterdir())
    fit(optimizer, folder / "killed", strategy, resume=True)
    fit(optimizer, folder / "whole", strategy)
    found, expected = (torch.load(folder / name / "final.pt", weights_only=True) for name in ("killed", "whole"))
    same_rows = rows(folder / "killed", "logs1") == rows(folder / "whole", "logs0")
    return {
        "ended": ended,
        "left": left,
        "tensors": torch.equal(found[0], expected[0]),
        "history": found[1] == expected[1],
        "projections": len(expected[1]),
        "drift": found[2:] == expected[2:],
        "logs": same_rows,
        "rows": len(rows(folder / "whole", "logs0")),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    where, strategy, *optimizers = sys.argv[1:]
    report = {o: compare(o, Path(where) / o, strategy if strategy != "one" else None) for o in optimizers}
    sys.stdout.write("REPORT " + json.dumps(report) + "\n")
