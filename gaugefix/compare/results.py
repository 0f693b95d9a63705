"""Reads a directory of finished runs: what was run, and what came out."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from gaugefix.compare.history import read_rows, series
from gaugefix.compare.run import Run, as_run, is_run, read_summary
from gaugefix.errors import GaugeError

NO_BETTER = 0.95
"""A run whose loss ends above this part of the untrained loss has not learned; the rest is the noise of a batch."""
TRAIN = "train/loss"


class ResultsError(GaugeError, ValueError):
    """A directory without runs, or with a description of them that cannot be read."""


@dataclass(frozen=True)
class Results:
    """All runs of a directory.

    Args:
        directory: that was read.
        recipe: its name.
        grid: the grid.json of a comparison; empty for a directory of ordinary runs.
        runs: those with a summary, in the order method, start, learning rate, seed; baselines first.
        unfinished: names of run directories that have no readable summary.
        superseded: runs left out because a later one has the same method, learning rate, start and seed.
    """

    directory: Path
    recipe: str
    grid: Mapping[str, Any]
    runs: tuple[Run, ...]
    unfinished: tuple[str, ...] = ()
    superseded: int = 0

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Labels that have runs, baselines first, then in the order of the grid, or by name."""
        return tuple(unique(run.method for run in self.runs))

    @cached_property
    def starts(self) -> tuple[str, ...]:
        """Starts that have runs, balanced first."""
        return tuple(sorted({run.start for run in self.runs}))

    @cached_property
    def lrs(self) -> tuple[float, ...]:
        """Learning rates that have runs, rising."""
        return tuple(sorted({run.lr for run in self.runs if run.lr is not None}))

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Seeds that have runs, rising."""
        return tuple(sorted({run.seed for run in self.runs}))

    @cached_property
    def monitor(self) -> str:
        """The recipe's validation metric, such as ``val/acc``."""
        if self.grid.get("monitor"):
            return str(self.grid["monitor"])
        accuracy = any(run.summary.get("val_acc_best") is not None for run in self.runs)
        return "val/acc" if accuracy else "val/loss"

    @cached_property
    def maximize(self) -> bool:
        """Whether more of the monitored metric is better."""
        return str(self.grid.get("monitor_mode") or ("max" if "acc" in self.monitor else "min")) == "max"

    @property
    def monitor_key(self) -> str:
        """Key of the summary with the best value of the monitored metric, such as ``val_acc_best``."""
        return self.monitor.replace("/", "_") + "_best"

    @property
    def planned(self) -> int | None:
        """Number of runs of the whole grid; None without a grid."""
        axes = [self.grid.get(name) for name in ("methods", "lrs", "seeds", "starts")]
        lengths = [len(axis) for axis in axes if isinstance(axis, list)]
        return math.prod(lengths) if len(lengths) == len(axes) else None

    def learned(self, run: Run) -> bool:
        """Whether a finished run ended better than the untrained network, by its validation loss.

        A loss can stay finite at a learning rate that is far too large: the units die, and the output is constant. The
        untrained loss is ``train_loss_first`` of the summary, that of the first batch; where the summary lacks it, the
        first training loss that was logged at the smallest learning rate. A run without a loss counts as learned.
        """
        before = run.value("train_loss_first") or self.first_logged
        after = run.value("val_loss_final") or run.value("train_loss_final")
        return run.outcome == "finished" and (before is None or after is None or after < NO_BETTER * before)

    @cached_property
    def first_logged(self) -> float | None:
        """The median of the first training losses that the runs with the smallest learning rate logged."""
        least = [run for run in self.runs if self.lrs and run.lr == self.lrs[0] and run.outcome == "finished"]
        firsts = [next(iter(found.values())) for run in least if (found := series(read_rows(run.directory), TRAIN))]
        return median(firsts) if firsts else None

    def select(self, method: str, start: str, lr: float | None) -> tuple[Run, ...]:
        """Return the runs of one cell of the grid, by seed."""
        return tuple(run for run in self.runs if (run.method, run.start, run.lr) == (method, start, lr))


def load(directory: str | os.PathLike[str]) -> Results:
    """Read a comparison (grid.json and runs/), a directory of ordinary runs of a recipe, or a single run.

    A run that was stopped half-way has no summary; it is named in ``unfinished``. Of ordinary runs with the same
    method, learning rate, start and seed the last by name counts, which is the latest.

    Args:
        directory: such as ``runs/feedforward/compare-20260101-120000`` or ``runs/feedforward``.

    Raises:
        ResultsError: if there is no such directory, it has no finished run, or its grid.json cannot be read.
    """
    path = Path(directory)
    if not path.is_dir():
        raise ResultsError(f"Expected a directory of runs for directory, got '{path}': no such directory.")
    grid = read_grid(path)
    found: dict[tuple[Any, ...], Run] = {}
    unfinished: list[str] = []
    superseded = 0
    for place in run_directories(path):
        summary = read_summary(place)
        if summary is None:
            unfinished.append(place.name)
            continue
        run = as_run(place, summary)
        key = (run.method, run.start, run.lr, run.seed)
        superseded += key in found
        found[key] = run
    if not found:
        raise ResultsError(nothing(path, unfinished))
    order = [str(method) for method in grid.get("methods", [])]
    runs = sorted(found.values(), key=lambda run: rank(run, order))
    recipe = grid.get("recipe") or next((run.summary["recipe"] for run in runs if run.summary.get("recipe")), path.name)
    return Results(path, str(recipe), grid, tuple(runs), tuple(unfinished), superseded)


def read_grid(path: Path) -> Mapping[str, Any]:
    """Return the description of a comparison; empty where there is none."""
    try:
        grid = json.loads((path / "grid.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ResultsError(
            f"Expected JSON for '{path / 'grid.json'}', got {error}. Run the comparison again."
        ) from error
    if not isinstance(grid, dict):
        raise ResultsError(f"Expected a JSON object for '{path / 'grid.json'}', got {type(grid).__name__}.")
    return grid


def run_directories(path: Path) -> list[Path]:
    """Return the directories of runs, by name."""
    if is_run(path):
        return [path]
    parent = path / "runs" if (path / "grid.json").exists() or (path / "runs").is_dir() else path
    return sorted(place for place in parent.iterdir() if is_run(place)) if parent.is_dir() else []


def is_baseline(method: str) -> bool:
    """Whether a method is training as it is, such as ``baseline`` or ``cnn_baseline``."""
    return method == "baseline" or method.endswith("_baseline")


def rank(run: Run, order: list[str]) -> tuple[Any, ...]:
    """Return what runs are sorted by."""
    place = order.index(run.method) if run.method in order else len(order)
    lr = -math.inf if run.lr is None else run.lr
    return (not is_baseline(run.method), place, run.method, run.start, lr, run.seed)


def unique(items: Iterable[str]) -> list[str]:
    """Return each item once, in the order of first sight."""
    return list(dict.fromkeys(items))


def nothing(path: Path, unfinished: list[str]) -> str:
    """Return the sentence about a directory without a finished run."""
    below = sorted(place.name for place in path.iterdir() if (place / "grid.json").is_file())
    if unfinished:
        mend = f"Runs that have begun and have no summary yet: {len(unfinished)}; let them finish."
    elif below:
        mend = f"It holds comparisons; choose one: {', '.join(str(path / name) for name in below)}."
    else:
        mend = "Make some: gaugefix compare RECIPE, or python recipes/RECIPE.py fit --config …"
    return f"Expected a directory with finished runs for directory, got '{path}'. {mend}"
