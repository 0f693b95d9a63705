"""What the panels draw: curves of the runs that each method is judged by, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gaugefix.compare.history import Curve, average_of, read_rows, series, thin
from gaugefix.compare.results import Results
from gaugefix.compare.run import Run
from gaugefix.compare.selection import judged
from gaugefix.demo.picture import styles_of

DRIFT_OF = ("gauge/", "/drift")
"""What the name of a symmetry is between, in metrics.jsonl."""


@dataclass(frozen=True)
class Judged:
    """A method from one start, at its best learning rate.

    Args:
        method: its label.
        start: ``balanced`` or ``unbalanced``.
        index: place among the methods of the report; tells their artists apart.
        style: color, linestyle and marker.
        runs: one for each seed.
        loss: validation loss, or training loss where nothing was validated.
        drift: distance to the slice.
        residual: of the slice.
        layers: symmetry → its drift, in the order of the file.
        projections: steps at which the first of the runs was projected.
    """

    method: str
    start: str
    index: int
    style: Mapping[str, Any]
    runs: tuple[Run, ...]
    loss: Curve | None
    drift: Curve | None
    residual: Curve | None
    layers: Mapping[str, Curve]
    projections: tuple[int, ...]

    @property
    def lr(self) -> float | None:
        """The best learning rate."""
        return self.runs[0].lr if self.runs else None


@dataclass(frozen=True)
class Material:
    """The results, and what was read for the panels."""

    results: Results
    judged: tuple[Judged, ...]

    def of(self, start: str) -> tuple[Judged, ...]:
        """Return the methods of one start."""
        return tuple(one for one in self.judged if one.start == start)

    def style(self, method: str) -> Mapping[str, Any]:
        """Return the style of a method."""
        return styles_of(self.results.methods)[method]

    @property
    def loss_name(self) -> str:
        """What the loss panel shows."""
        keys = {key for run in self.results.runs for key in run.summary}
        return "validation loss" if "val_loss_final" in keys else "training loss"


def gather(results: Results) -> Material:
    """Read the histories of the runs that the table shows; the others are known by their summaries."""
    styles = styles_of(results.methods)
    found = []
    for start in results.starts:
        for index, method in enumerate(results.methods):
            runs = judged(results, method, start)
            if runs:
                found.append(read(method, start, index, styles[method], runs))
    return Material(results, tuple(found))


def read(method: str, start: str, index: int, style: Mapping[str, Any], runs: tuple[Run, ...]) -> Judged:
    """Return one method from one start."""
    histories = [read_rows(run.directory) for run in runs]

    def curve(key: str) -> Curve | None:
        averaged = average_of([found for rows in histories if (found := series(rows, key))])
        return thin(averaged) if averaged else None

    names = dict.fromkeys(key for rows in histories for row in rows for key in row if is_layer(key))
    layers = {key[len(DRIFT_OF[0]) : -len(DRIFT_OF[1])]: one for key in names if (one := curve(key)) is not None}
    projections = tuple(series(histories[0], "gauge/drift_after"))
    loss = curve("val/loss") or curve("train/loss")
    return Judged(
        method, start, index, style, runs, loss, curve("gauge/drift"), curve("gauge/residual"), layers, projections
    )


def is_layer(key: str) -> bool:
    """Whether a metric is the drift of one symmetry, ``gauge/<layer>:<kind>/drift``."""
    return key.startswith(DRIFT_OF[0]) and key.endswith(DRIFT_OF[1]) and ":" in key
