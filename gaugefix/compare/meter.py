"""How far a grid of runs is, and how long it still takes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from gaugefix.compare.run import read_summary
from gaugefix.demo.extras import require


class Meter:
    """A progress bar over all runs with the time left; a line for each run where the output is no terminal.

    Args:
        total: number of runs.
        jobs: how many are under way at a time.
    """

    def __init__(self, total: int, jobs: int) -> None:
        require("rich", "gaugefix compare")
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.total, self.jobs = total, jobs
        self._done = 0
        self._seconds = 0.0
        self._last = time.monotonic()
        self._live = Console().is_terminal
        self._progress = Progress(
            MofNCompleteColumn(),
            TextColumn("runs"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            disable=not self._live,
        )
        self._task = self._progress.add_task("", total=total, note="")

    def __enter__(self) -> Meter:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def beat(self) -> None:
        """Show the time left anew."""
        if self._live:
            self._progress.update(self._task, completed=self._done, note=self.left())

    def ended(self, task: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
        """Count a run that ended, well or badly."""
        self._done += 1
        self._seconds += float(reply.get("seconds", 0.0))
        self._last = time.monotonic()
        name = Path(task["directory"]).name
        if reply["status"] == "failed":
            failure = f"{name} failed: {reply['error']}"
            self._progress.console.print(failure, style="red", markup=False, highlight=False, soft_wrap=True)
        if self._live:
            self.beat()
        else:
            print(f"[{self._done}/{self.total}] {name}: {result(task)}; {self.left()}", flush=True)

    def left(self) -> str:
        """Return the time that the rest will take, from the mean of those that ended."""
        if not self._done:
            return "starting"
        each = self._seconds / self._done / self.jobs
        seconds = max(0.0, each * (self.total - self._done) - (time.monotonic() - self._last))
        return f"{duration(seconds)} left"


def result(task: Mapping[str, Any]) -> str:
    """Return what came out of a run, in a few words."""
    summary = read_summary(Path(task["directory"])) or {}
    if summary.get("status") != "success":
        return "failed"
    if summary.get("diverged"):
        return f"diverged at step {summary.get('steps')}"
    loss = summary.get("val_loss_final")
    return "no validation" if loss is None else f"val loss {loss:.4g}"


def duration(seconds: float) -> str:
    """Return a time as a person says it.

    Example:
        >>> duration(42), duration(200), duration(7800)
        ('42 s', '3 min 20 s', '2 h 10 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
