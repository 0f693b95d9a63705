"""``gaugefix demo``: the same network trained as it is, and with its gauge fixed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from gaugefix.callbacks import GaugeProjection, OrbitDrift
from gaugefix.demo.digits import DigitsData
from gaugefix.demo.extras import require
from gaugefix.demo.jsonl_logger import JsonlLogger
from gaugefix.demo.mlp import MLP
from gaugefix.demo.picture import draw
from gaugefix.demo.progress import ProgressLine
from gaugefix.demo.quiet import quiet
from gaugefix.demo.run_directory import new_run_directory
from gaugefix.demo.run_summary import RunSummary
from gaugefix.demo.run_table import print_runs
from gaugefix.demo.unbalanced_start import UnbalancedStart

METHODS = ("baseline", "minimal_norm")
WIDTHS = (256, 256, 256, 256)
LR = 0.03
BATCH = 64
LOG_STD = 1.0
PROJECT_EVERY = 100
MEASURE_EVERY = 50
THREADS = 1  # as fast as more for so small a network, and much faster where other programs use the cores too
LOG_EVERY = 10


def run_demo(steps: int = 1500, seed: int = 0, out: str = "runs") -> Path:
    """Train both networks, print the table, draw the picture.

    Args:
        steps: optimizer steps of each run.
        seed: of weights, unbalanced scales and order of the data; both runs share it.
        out: where to make ``demo/<time>-s<seed>``.

    Returns:
        The directory with the results.
    """
    for package in ("rich", "scikit-learn", "matplotlib"):
        require(package, "gaugefix demo")
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    quiet()
    torch.set_num_threads(THREADS)
    directory = new_run_directory(Path(out) / "demo", f"s{seed}")
    print(
        f"A multilayer perceptron ({len(WIDTHS)} × {WIDTHS[0]} hidden units, SGD with momentum) learns handwritten "
        "digits, twice,\nfrom the same badly unbalanced start: "
        f"every hidden unit is rescaled at random (log-std {LOG_STD:g}), the function kept.\n"
        f"minimal_norm projects onto the slice at the start and every {PROJECT_EVERY} steps."
    )
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    runs: dict[str, dict[str, Any]] = {}
    with Progress(*columns) as progress:
        tasks = {method: progress.add_task(method, total=steps, note="") for method in METHODS}
        for method in METHODS:
            line = ProgressLine(progress, tasks[method])
            runs[method] = train(method, steps, seed, directory / method, [line])
    print_runs(runs)
    title = "MLP on digits, badly unbalanced start: loss and distance to the slice"
    picture = draw({method: directory / method for method in METHODS}, directory / "picture.png", title)
    print(f"\nPicture: {picture}")
    print(directory)
    return directory


def train(method: str, steps: int, seed: int, directory: Path, extra: list[Callback]) -> dict[str, Any]:
    """Train once and return the summary.

    Args:
        method: one of :data:`METHODS`.
        steps: optimizer steps.
        seed: of everything random.
        directory: of this run.
        extra: further callbacks.
    """
    seed_everything(seed, workers=True, verbose=False)
    model = MLP(widths=WIDTHS, lr=LR)
    slice_name = None if method == "baseline" else method
    callbacks: list[Callback] = [UnbalancedStart(LOG_STD, seed)]
    if slice_name:
        callbacks.append(GaugeProjection(slice_name, every_n_steps=PROJECT_EVERY))
    settings = {"recipe": "demo", "method": method, "slice": slice_name, "seed": seed, "lr": LR}
    summary = RunSummary(settings)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=-1,
        max_steps=steps,
        callbacks=[*callbacks, OrbitDrift(every_n_steps=MEASURE_EVERY), summary, *extra],
        logger=JsonlLogger(directory),
        log_every_n_steps=LOG_EVERY,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=DigitsData(batch_size=BATCH))
    return summary.values
