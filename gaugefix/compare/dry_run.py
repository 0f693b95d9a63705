"""``gaugefix compare --dry-run``: what would be run, on which gauge group, and how long it would take."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gaugefix.compare.conduct import default_jobs, finished, task_of
from gaugefix.compare.crew import Crew
from gaugefix.compare.grid import Grid, GridError, PlannedRun, Variant, length, read_config
from gaugefix.compare.meter import duration
from gaugefix.compare.run import read_summary

TIMED = 25
"""Optimizer steps of the short run of each method; it takes the median, and what is not a step is a fixed cost."""


def dry_run(grid: Grid, out: str | None = None, jobs: int | None = None) -> int:
    """Print the runs, the gauge group of the model, what each method adds, and an estimate from a few timed steps.

    Nothing is left behind.

    Args:
        grid: what would be run.
        out: directory of the comparison, if there is one already.
        jobs: worker processes.

    Raises:
        GridError: if a method cannot be run; the message has its error.
    """
    there = [run for run in grid.runs if out and finished(Path(out), run)]
    workers = max(1, min(jobs or default_jobs(), len(grid.runs) - len(there)))
    axes = (
        (len(grid.variants), "method"),
        (max(1, len(grid.lrs)), "learning rate"),
        (len(grid.starts), "start"),
        (len(grid.seeds), "seed"),
    )
    product = " × ".join(f"{count} {noun}{'s' * (count > 1)}" for count, noun in axes)
    print(f"{grid.recipe}, {grid.config}: {product} = {len(grid.runs)} runs; {len(there)} are there already.")
    with tempfile.TemporaryDirectory() as place:
        replies = time_all(grid, Path(place))
    print(f"\n{replies.pop('')['gauge']}\n")
    for variant in grid.variants:
        print(f"{variant.label}: {added(variant)}")
    seconds = {label: estimate(grid, reply) for label, reply in replies.items()}
    whole = sum(seconds[run.variant.label] for run in grid.runs if run not in there) / workers
    slowest = max(seconds, key=lambda label: seconds[label])
    steps = next(iter(replies.values()))["steps"]
    print(
        f"\nEstimate from {TIMED} timed steps of each method: {duration(whole)} with {workers} at a time, "
        f"{steps} steps and {duration(min(seconds.values()))} to {duration(seconds[slowest])} a run "
        f"(longest: {slowest})."
    )
    return 0


def time_all(grid: Grid, place: Path) -> dict[str, dict[str, Any]]:
    """Return the times of a short run of each method; ``""`` has the gauge group."""
    tasks = []
    for variant in grid.variants:
        run = PlannedRun(variant, (grid.lrs or (None,))[0], grid.starts[0], grid.seeds[0])
        tasks.append(task_of(replace(grid, max_steps=TIMED, wandb="disabled"), run, place))
    first = {**tasks[0], "directory": str(place / "first"), "describe": True}  # also loads and warms up what all need
    first["arguments"] = [word.replace(tasks[0]["directory"], first["directory"]) for word in tasks[0]["arguments"]]
    crew = Crew([first, *tasks], jobs=1)
    found: dict[str, dict[str, Any]] = {}
    try:
        for ended in crew.replies():
            if ended is not None:
                note(found, *ended, first=first, grid=grid)
    finally:
        crew.stop()
    return found


def note(
    found: dict[str, dict[str, Any]],
    task: Mapping[str, Any],
    reply: Mapping[str, Any],
    first: Mapping[str, Any],
    grid: Grid,
) -> None:
    """Keep what one short run tells."""
    label = task["identity"]["method"]
    if reply["status"] == "failed":
        raise GridError(f"Expected a run of {label} to work, got {reply['error']}. Mend that first.")
    if task["directory"] == first["directory"]:
        found[""] = {"gauge": reply["gauge"]}
        return
    summary = read_summary(Path(task["directory"])) or {}
    times = {key: summary[key] for key in ("step_seconds", "validation_seconds")}
    batches = reply["batches"]
    found[label] = {**times, "seconds": reply["seconds"], "batches": batches, "steps": steps_of(grid, batches)}


def steps_of(grid: Grid, batches: int) -> int:
    """Return the optimizer steps of a run."""
    trainer = read_config(grid.config).get("trainer", {})
    trainer |= dict(read_setting(setting) for setting in grid.settings if setting.startswith("trainer."))
    if grid.max_steps:
        return grid.max_steps
    epochs, most = (int(trainer.get(key) or -1) for key in ("max_epochs", "max_steps"))
    limits = [limit for limit in (epochs * batches, most) if limit > 0]
    return min(limits) if limits else 1000 * batches  # Lightning's own limit


def read_setting(setting: str) -> tuple[str, str]:
    """Return key and value of ``trainer.key=value``."""
    key, _, value = setting.removeprefix("trainer.").partition("=")
    return key, value


def validations(grid: Grid, steps: int, batches: int) -> float:
    """Return how often a run validates."""
    trainer = read_config(grid.config).get("trainer", {})
    chosen = [
        word.partition("=")[2] for word in length(grid.max_steps, read_config(grid.config)) if "val_check" in word
    ]
    interval = int(chosen[0]) if chosen else trainer.get("val_check_interval")
    return steps / (interval if isinstance(interval, int) else batches)


def estimate(grid: Grid, times: Mapping[str, Any]) -> float:
    """Return the seconds of a whole run."""
    step, validation = times["step_seconds"], times["validation_seconds"]
    fixed = max(times["seconds"] - TIMED * step - validation, 0.0)
    often = validations(grid, times["steps"], times["batches"])
    return float(fixed + times["steps"] * step + often * validation)


def added(variant: Variant) -> str:
    """Return what a method adds to the configuration."""
    method = variant.method
    words = [f"{option}={value:g}" for option, value in method.options] + list(variant.settings)
    words += [f"{called(callback)}" for callback in method.callbacks]
    return ", ".join(words) or "the configuration as it is"


def called(callback: Mapping[str, Any]) -> str:
    """Return a callback as it is written in Python."""
    settings: Iterable[tuple[str, Any]] = callback["init_args"].items()
    return f"{callback['class_path'].rsplit('.', 1)[-1]}({', '.join(f'{key}={value!r}' for key, value in settings)})"
