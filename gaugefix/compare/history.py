"""Curves of runs: read from metrics.jsonl, averaged over seeds, thinned out for a page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gaugefix.compare.run import Run

POINTS = 60
"""Points that a curve keeps at most; more could not be told apart on the page."""


@dataclass(frozen=True)
class Curve:
    """A metric over the steps of training.

    Args:
        steps: shape (points,), rising.
        mean: over the seeds, shape (points,).
        low: smallest of the seeds, shape (points,).
        high: greatest of the seeds, shape (points,).
        seeds: how many runs it is made of.
    """

    steps: NDArray[np.int64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    seeds: int


def read_rows(directory: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl; a line that is not whole JSON, as a killed run leaves, is skipped."""
    try:
        lines = (directory / "metrics.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def series(rows: Iterable[dict[str, Any]], key: str) -> dict[int, float]:
    """Return step → finite value of one metric, steps rising; of several values at a step the last counts."""
    found = {row["step"]: row[key] for row in rows if isinstance(row.get(key), (int, float))}
    return {step: float(found[step]) for step in sorted(found) if math.isfinite(found[step])}


def average(runs: Sequence[Run], key: str) -> Curve | None:
    """Return the mean over seeds of one metric, at the steps that all of the runs have measured.

    Args:
        runs: that differ in their seed only.
        key: of metrics.jsonl.

    Returns:
        None if no run has the metric. Runs without it are left out.
    """
    return average_of([found for run in runs if (found := series(read_rows(run.directory), key))])


def average_of(found: Sequence[dict[int, float]]) -> Curve | None:
    """Return the mean of several series, at the steps that are in all of them; None if there is no such step."""
    steps = sorted(set.intersection(*(set(one) for one in found))) if found else []
    if not steps:
        return None
    values = np.array([[one[step] for step in steps] for one in found])
    return Curve(np.array(steps), values.mean(0), values.min(0), values.max(0), len(found))


def thin(curve: Curve, points: int = POINTS) -> Curve:
    """Return a curve with at most so many of its points, evenly chosen, first and last among them."""
    if len(curve.steps) <= points:
        return curve
    kept = np.unique(np.linspace(0, len(curve.steps) - 1, points).round().astype(int))
    return Curve(curve.steps[kept], curve.mean[kept], curve.low[kept], curve.high[kept], curve.seeds)
