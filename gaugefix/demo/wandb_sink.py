"""Weights & Biases as a second place for results, with or without an account."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from gaugefix.demo.extras import require

PROJECT = "gaugefix"
STEP = "trainer/global_step"  # the step under which WandbLogger logs


def wandb_logger(mode: Literal["offline", "online"], directory: Path, name: str, group: str) -> WandbLogger:
    """Start a W&B run and return its logger; offline where no key is configured, saying so.

    Args:
        mode: offline writes into ``directory/wandb`` and needs no account; online needs ``wandb login``.
        directory: of the run.
        name: of the run.
        group: runs that differ by their seed only.
    """
    wandb = require("wandb", "--wandb")
    if getattr(rank_zero_only, "rank", 0):
        return WandbLogger(project=PROJECT)  # logs nothing in this process

    def start(mode: str) -> WandbLogger:
        settings = wandb.Settings(silent=True, console="off")
        run = wandb.init(project=PROJECT, name=name, group=group, dir=directory, mode=mode, settings=settings)
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        return WandbLogger(project=PROJECT, name=name, save_dir=directory, experiment=run)

    if mode == "online":
        try:
            return start("online")
        except wandb.errors.UsageError as error:
            print(f"W&B: {str(error).splitlines()[0]} Going on offline.")
    print(f"W&B: offline. To upload this run later: wandb sync {directory}/wandb/offline-run-*")
    return start("offline")
