"""results.csv: every run a line, the columns flat and always in the same order."""

from __future__ import annotations

import csv
import io
from typing import Any

from gaugefix.compare.results import Results
from gaugefix.compare.run import Run

FIRST = ("recipe", "method", "start", "lr", "seed", "outcome", "learned")
"""Columns that every file begins with; the rest are the keys of the summaries, by name."""


def results_csv(results: Results) -> str:
    """Return the file's text. A list, such as widths, is joined by blanks; what a run lacks is empty."""
    rows = [flat(results, run) for run in results.runs]
    rest = sorted({key for row in rows for key in row} - set(FIRST))
    text = io.StringIO()
    writer = csv.DictWriter(text, [*FIRST, *rest], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def flat(results: Results, run: Run) -> dict[str, Any]:
    """Return a run as one level of keys."""
    row = {key: plain(value) for key, value in run.summary.items()}
    return {
        **row,
        "recipe": results.recipe,
        "method": run.method,
        "start": run.start,
        "lr": plain(run.lr),
        "seed": run.seed,
        "outcome": run.outcome,
        "learned": plain(results.learned(run)),
    }


def plain(value: Any) -> Any:
    """Return a value as one cell."""
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return " ".join(str(plain(item)) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    return value
