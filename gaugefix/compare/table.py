"""The table of results: a row for each method, mean ± std over seeds at the method's own best learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from gaugefix.compare.results import Results
from gaugefix.compare.run import Run
from gaugefix.compare.selection import best_lr, finished_values, judged, largest_stable_lr, rates

MEASURES: tuple[tuple[str, str, bool | None, str], ...] = (
    # key of the summary, heading, whether more is better (None: neither is), format of the unit
    ("val_acc_best", "val acc, best", True, ""),
    ("val_acc_final", "val acc, final", True, ""),
    ("val_loss_best", "val loss, best", False, ""),
    ("val_loss_final", "val loss, final", False, ""),
    ("train_loss_final", "train loss, final", False, ""),
    ("nfe", "NFE", False, ""),
    ("solver_error", "solver error", False, ""),
    ("gauge_drift_final", "drift, final", None, ""),
    ("gauge_residual_final", "residual, final", None, ""),
    ("overhead_pct", "step overhead", None, " %"),
)
"""Columns, those of the summary; one that no run has is left out. The monitored metric comes first."""


@dataclass(frozen=True)
class Cell:
    """One entry of the table.

    Args:
        text: as it is shown.
        value: what the column is sorted by; None where there is nothing.
        best: whether it is the best of its column.
    """

    text: str
    value: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Row:
    """A method and its cells, one for each heading."""

    method: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """The methods from one start.

    Args:
        start: ``balanced`` or ``unbalanced``.
        headings: of the columns behind the method's name.
        rows: baselines first.
    """

    start: str
    headings: tuple[str, ...]
    rows: tuple[Row, ...]


def tables(results: Results) -> tuple[Table, ...]:
    """Return one table for each start."""
    return tuple(table(results, start) for start in results.starts)


def table(results: Results, start: str) -> Table:
    """Return the table of one start."""
    methods = [method for method in results.methods if rates(results, method, start)]
    chosen = {method: judged(results, method, start) for method in methods}
    every = {method: [run for run in results.runs if (run.method, run.start) == (method, start)] for method in methods}
    columns: list[tuple[str, list[Cell]]] = [
        ("best lr", [rate_cell(best_lr(results, method, start)) for method in methods]),
        (
            "largest stable lr",
            mark_best([rate_cell(largest_stable_lr(results, method, start), "none") for method in methods], True),
        ),
        ("diverged", [counted(every[method], "diverged") for method in methods]),
    ]
    if any(run.outcome == "failed" for runs in every.values() for run in runs):
        columns.append(("failed", [counted(every[method], "failed") for method in methods]))
    if not all(results.learned(run) for runs in every.values() for run in runs if run.outcome == "finished"):
        columns.append(("not learned", [unlearned(results, every[method]) for method in methods]))
    for key, heading, more, unit in measures(results):
        cells = [measured(finished_values(chosen[method], key), unit) for method in methods]
        if any(cell.value is not None for cell in cells):
            columns.append((heading, cells if more is None else mark_best(cells, more)))
    columns.append(("seeds", [Cell(str(len(chosen[method])), len(chosen[method])) for method in methods]))
    rows = tuple(Row(method, tuple(cells[k] for _, cells in columns)) for k, method in enumerate(methods))
    return Table(start, tuple(heading for heading, _ in columns), rows)


def measures(results: Results) -> list[tuple[str, str, bool | None, str]]:
    """Return the columns of the summary, the monitored metric first."""
    monitored = results.monitor_key
    listed = [measure for measure in MEASURES if measure[0] == monitored]
    if not listed:
        listed = [(monitored, f"{results.monitor.replace('/', ' ')}, best", results.maximize, "")]
    return listed + [measure for measure in MEASURES if measure[0] != monitored]


def measured(values: Sequence[float], unit: str = "") -> Cell:
    """Return mean ± sample standard deviation; the mean alone of a single value."""
    if not values:
        return Cell("–")
    return Cell(plus_minus(fmean(values), stdev(values) if len(values) > 1 else None) + unit, fmean(values))


def plus_minus(mean: float, spread: float | None) -> str:
    """Return ``mean ± spread``, with three digits of the greater or two of the spread, whichever are fewer.

    Example:
        >>> plus_minus(0.98123, 0.0042), plus_minus(2.14e-5, 3.1e-6), plus_minus(0.98123, None)
        ('0.981 ± 0.004', '(2.14 ± 0.31)e-05', '0.981')
    """
    size = max(abs(mean), spread or 0.0)
    exponent = math.floor(math.log10(size)) if size else 0
    if spread is None:
        return f"{mean:.2e}" if size and not -3 <= exponent < 4 else f"{mean:#.3g}".rstrip(".")
    scaled = size != 0 and not -3 <= exponent < 4
    factor = 10.0**-exponent if scaled else 1.0
    mean, spread = mean * factor, spread * factor
    digits = 2 - (0 if scaled else min(exponent, 2))
    if spread:
        digits = max(0, min(digits, 1 - math.floor(math.log10(spread))))
    text = f"{mean:.{digits}f} ± {spread:.{digits}f}"
    return f"({text})e{exponent:+03d}" if scaled else text


def rate_cell(lr: float | None, missing: str = "–") -> Cell:
    """Return a learning rate."""
    return Cell(missing) if lr is None else Cell(f"{lr:g}", lr)


def counted(runs: Sequence[Run], outcome: str) -> Cell:
    """Return how many of the runs came out that way, such as ``2 of 15``."""
    count = sum(run.outcome == outcome for run in runs)
    return Cell(f"{count} of {len(runs)}", count)


def unlearned(results: Results, runs: Sequence[Run]) -> Cell:
    """Return how many of the runs finished no better than untrained."""
    count = sum(run.outcome == "finished" and not results.learned(run) for run in runs)
    return Cell(f"{count} of {len(runs)}", count)


def mark_best(cells: Sequence[Cell], more: bool) -> list[Cell]:
    """Return the cells with the best of them marked, several where they read the same; none where all do."""
    values = [cell.value for cell in cells if cell.value is not None]
    if not values:
        return list(cells)
    best = max(values) if more else min(values)
    winners = {cell.text for cell in cells if cell.value == best}
    if len({cell.text for cell in cells}) == 1:
        return list(cells)
    return [replace(cell, best=cell.text in winners) for cell in cells]
