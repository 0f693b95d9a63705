"""A short table of finished runs, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gaugefix.demo.extras import require

COLUMNS = {
    "val\nacc": ("val_acc_best", "{:.3f}"),
    "val\nloss": ("val_loss_final", "{:.3f}"),
    "drift": ("gauge_drift_final", "{:.1e}"),
    "residual": ("gauge_residual_final", "{:.1e}"),
    "invariance\nerror": ("invariance_error_max", "{:.1e}"),
    "overhead": ("overhead_pct", "{:.2f} %"),
    "time": ("seconds", "{:.0f} s"),
}
"""Heading → key of the summary, format. A column whose key no run has is left out."""


def print_runs(runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Print one row per method.

    Args:
        runs: method → summary.
    """
    require("rich", "the table of results")
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("method", vertical="bottom", no_wrap=True)
    columns = {k: column for k, column in COLUMNS.items() if any(column[0] in values for values in runs.values())}
    for heading in columns:
        table.add_column(heading, justify="right", vertical="bottom", no_wrap=True)
    for method, values in runs.items():
        cells = [shown(values.get(key), form) for key, form in columns.values()]
        table.add_row(method, *cells, style="red" if values.get("diverged") else "")
    Console().print(table)


def shown(value: Any, form: str) -> str:
    """Return a number in its format, or a dash where there is none."""
    return "–" if value is None or value != value else form.format(value)
