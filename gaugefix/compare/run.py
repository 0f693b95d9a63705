"""One finished run of a recipe, read from its directory."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START = "balanced"
"""Start of a run that does not name its start and has no UnbalancedStart among its callbacks."""


@dataclass(frozen=True)
class Run:
    """One finished run.

    Args:
        directory: where its metrics.jsonl is.
        method: the label that was typed, such as ``minimal_norm@1``.
        lr: learning rate; None for a model that has none.
        start: ``balanced`` or ``unbalanced``.
        seed: of everything random.
        summary: its summary.json.
    """

    directory: Path
    method: str
    lr: float | None
    start: str
    seed: int
    summary: Mapping[str, Any]

    @property
    def outcome(self) -> str:
        """``finished``, ``diverged`` (the loss was not finite), or ``failed`` (an error, named in the summary)."""
        if self.summary.get("diverged"):
            return "diverged"
        return "finished" if self.summary.get("status", "success") == "success" else "failed"

    def value(self, key: str) -> float | None:
        """Return a finite number of the summary, or None."""
        found = self.summary.get(key)
        if isinstance(found, bool) or not isinstance(found, (int, float)) or not math.isfinite(found):
            return None
        return float(found)


def is_run(path: Path) -> bool:
    """Whether a run has begun to write there."""
    return (path / "summary.json").is_file() or (path / "metrics.jsonl").is_file()


def read_summary(place: Path) -> Mapping[str, Any] | None:
    """Return the summary of a run, or None if it has none that can be read."""
    try:
        summary = json.loads((place / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) else None


def as_run(place: Path, summary: Mapping[str, Any]) -> Run:
    """Return the run of a summary; what the summary lacks is read off the directory."""
    lr, seed = summary.get("lr"), summary.get("seed")
    return Run(
        place,
        str(summary.get("method") or place.name),
        float(lr) if isinstance(lr, (int, float)) and not isinstance(lr, bool) else None,
        str(summary.get("start") or start_of(place)),
        seed if isinstance(seed, int) else 0,
        summary,
    )


def start_of(place: Path) -> str:
    """Return the start of a run whose summary does not name it, by its configuration."""
    try:
        configured = (place / "config.yaml").read_text(encoding="utf-8")
    except OSError:
        return START
    return "unbalanced" if "UnbalancedStart" in configured else START
