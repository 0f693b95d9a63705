"""Carry out a comparison: what is not there yet, in worker processes, with the report at the end."""

from __future__ import annotations

import shlex
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gaugefix.compare.closing import close
from gaugefix.compare.crew import Crew
from gaugefix.compare.grid import Grid, PlannedRun
from gaugefix.compare.meter import Meter
from gaugefix.compare.record import alone, cores, describe, make, open_record
from gaugefix.compare.run import read_summary
from gaugefix.demo.run_directory import new_run_directory
from gaugefix.demo.wandb_sink import send_page

JOBS_MAX = 8
INTERRUPTED = 130
"""Exit status of a program that Ctrl-C stopped."""


def conduct(grid: Grid, words: list[str], out: str | None = None, jobs: int | None = None) -> int:
    """Run what is missing, write the report, and print the path to open last.

    Runs that are finished stay as they are; those that failed or were not finished are run again. Ctrl-C ends the runs
    that are under way and leaves their directories out.

    Args:
        grid: what to run.
        words: the command that was typed.
        out: directory of the comparison; a new one in ``runs/<recipe>`` by default.
        jobs: worker processes; by default one for each core but one, at most eight.

    Returns:
        Exit status: 0, 1 if no run was a success, or 130 after Ctrl-C.
    """
    description = describe(grid, shlex.join(words))
    directory = make(Path(out)) if out else new_run_directory(Path("runs") / grid.recipe, "compare", time_first=False)
    with alone(directory):
        open_record(directory, description)
        interrupted = not run_missing(grid, directory, jobs)
        outcomes = Counter(outcome(directory, run) for run in grid.runs)
        if interrupted:
            again = shlex.join(words if out else [*words, "--out", str(directory)])
            print(f"Stopped: {outcomes['missing']} of {len(grid.runs)} runs are missing. To go on: {again}")
        last = close(directory)
        if grid.wandb != "disabled":
            send(last, grid, directory)
    print(last)
    return INTERRUPTED if interrupted else 0 if outcomes["success"] else 1


def run_missing(grid: Grid, directory: Path, jobs: int | None) -> bool:
    """Do the runs that are not finished; return whether all were done, which they are not after Ctrl-C."""
    missing = [run for run in grid.runs if not finished(directory, run)]
    if there := len(grid.runs) - len(missing):
        print(f"{there} of {len(grid.runs)} runs are there already.")
    if not missing:
        return True
    workers = min(jobs or default_jobs(), len(missing))
    print(f"{len(missing)} runs of {grid.recipe}, {workers} at a time; results go to {directory}.", flush=True)
    return run_all(grid, missing, directory, workers)


def send(page: Path, grid: Grid, directory: Path) -> None:
    """Send the report to W&B too, and say how to upload what was written offline."""
    if page.suffix == ".html":
        send_page(page, "online" if grid.wandb == "online" else "offline", directory.name, f"{grid.recipe}/compare")
    if any(directory.glob("runs/*/wandb/offline-run-*")):
        print(f"W&B: to upload the runs later: wandb sync {directory}/runs/*/wandb/offline-run-*")


def default_jobs() -> int:
    """Return how many runs to do at a time: one core stays free for the rest of the machine."""
    return max(1, min(cores() - 1, JOBS_MAX))


def place(directory: Path, run: PlannedRun) -> Path:
    """Return the directory of a run."""
    return directory / "runs" / run.name


def outcome(directory: Path, run: PlannedRun) -> str:
    """Return success, failed or missing."""
    return str((read_summary(place(directory, run)) or {}).get("status", "missing"))


def finished(directory: Path, run: PlannedRun) -> bool:
    """Whether a run need not be done again; its summary is what it writes last."""
    return outcome(directory, run) == "success"


def task_of(grid: Grid, run: PlannedRun, directory: Path) -> dict[str, Any]:
    """Return what a worker needs to know."""
    path = place(directory, run).resolve()
    identity = {
        "recipe": grid.recipe,
        "method": run.variant.label,
        "lr": run.lr,
        "start": run.start,
        "seed": run.seed,
    }
    arguments = grid.arguments(run, path)
    return {"script": str(grid.script), "arguments": arguments, "directory": str(path), "identity": identity}


def run_all(grid: Grid, runs: list[PlannedRun], directory: Path, jobs: int) -> bool:
    """Do the runs; return whether all were done, which they are not after Ctrl-C."""
    crew = Crew([task_of(grid, run, directory) for run in runs], jobs)
    with Meter(len(runs), jobs) as meter:
        try:
            for ended in crew.replies():
                if ended is None:
                    meter.beat()
                else:
                    meter.ended(*ended)
        except KeyboardInterrupt:
            crew.stop()
            for task in crew.under_way:
                discard(task)
            return False
        finally:
            crew.stop()
    return True


def discard(task: Mapping[str, Any]) -> None:
    """Remove the directory of a run that did not get to its summary."""
    path = Path(task["directory"])
    if (read_summary(path) or {}).get("status") != "success":
        shutil.rmtree(path, ignore_errors=True)
