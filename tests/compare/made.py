"""Runs with numbers of our choice, where a test needs to know what comes out."""

import json
from pathlib import Path

from gaugefix.compare.results import Results
from gaugefix.compare.run import Run


def made(method: str, lr: float, seed: int = 0, start: str = "balanced", directory: Path = Path(), **summary) -> Run:
    """Return a run without files, unless a directory is given."""
    return Run(directory, method, lr, start, seed, {"status": "success", "diverged": False, **summary})


def results(*runs: Run, **grid) -> Results:
    """Return the results that these runs make."""
    return Results(Path(), "made", {"monitor": "val/acc", "monitor_mode": "max", **grid}, runs)


def write_run(place: Path, rows: list[dict], **summary) -> Path:
    """Write the files of a run."""
    place.mkdir(parents=True)
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "summary.json").write_text(json.dumps({"status": "success", "diverged": False, **summary}))
    return place
