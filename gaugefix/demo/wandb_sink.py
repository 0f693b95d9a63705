"""Weights & Biases as a second place for results, with or without an account."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from gaugefix.demo.extras import require

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run

PROJECT = "gaugefix"  # WANDB_PROJECT, WANDB_ENTITY and WANDB_BASE_URL choose another place
STEP = "trainer/global_step"  # the step under which WandbLogger logs
Mode = Literal["offline", "online"]


def wandb_logger(mode: Mode, directory: Path, name: str, group: str) -> WandbLogger:
    """Start a W&B run and return its logger; offline where the server cannot be used, saying so.

    Args:
        mode: offline writes into ``directory/wandb`` and needs no account; online needs ``wandb login``.
        directory: of the run.
        name: of the run.
        group: runs that differ by their seed only.
    """
    require("wandb", "--wandb")
    if getattr(rank_zero_only, "rank", 0):
        return WandbLogger(project=project())  # logs nothing in this process
    run = start_run(mode, directory, name, group)
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP, step_sync=True)
    return WandbLogger(project=project(), name=name, save_dir=directory, experiment=run)


def send_page(page: Path, mode: Mode, name: str, group: str) -> None:
    """Send a page of a report, as it is, in a W&B run of its own; offline where the server cannot be used.

    Args:
        page: an HTML file that needs no other file.
        mode: as for :func:`wandb_logger`; offline writes into the directory of the page.
        name: of the run.
        group: of the run, such as ``feedforward/compare``.
    """
    wandb = require("wandb", "--wandb")
    html = page.read_text(encoding="utf-8")
    with start_run(mode, page.parent, name, group, job_type="report") as run:
        run.log({"report": wandb.Html(html, inject=False)})  # W&B's own style sheet would come from the network


def start_run(mode: Mode, directory: Path, name: str, group: str, job_type: str | None = None) -> Run:
    """Start a W&B run, quietly; offline if it cannot be online."""
    wandb = require("wandb", "--wandb")
    if wandb.run is not None:
        wandb.finish(exit_code=1)  # left by a run that failed in this process; init would hand it out again

    def start(mode: Mode) -> Run:
        run: Run = wandb.init(
            project=project(),
            name=name,
            group=group,
            job_type=job_type,
            dir=str(directory),  # wandb 0.19 takes no Path
            mode=mode,
            settings=wandb.Settings(silent=True, console="off"),
        )
        return run

    if mode == "online":
        try:
            return start("online")
        except (wandb.errors.UsageError, wandb.errors.CommError) as error:
            print(f"W&B: {str(error).splitlines()[0].rstrip('.')}. Going on offline.")
    print(f"W&B: offline. To upload this run later: wandb sync {directory}/wandb/offline-run-*")
    wandb.setup(settings=wandb.Settings(mode="offline"))  # or W&B's telemetry asks the server in spite of `mode`
    return start("offline")


def project() -> str:
    """Return the W&B project that runs go to."""
    return os.environ.get("WANDB_PROJECT") or PROJECT
