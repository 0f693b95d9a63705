"""The picture of one or several runs: loss above, orbit drift below, on the same steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gaugefix.demo.extras import require

# Okabe and Ito's palette, which colour-blind people can tell apart; the baseline is grey and dashed everywhere.
STYLES: Mapping[str, Mapping[str, Any]] = {
    "baseline": {"color": "#7f7f7f", "linestyle": "--"},
    "minimal_norm": {"color": "#0072b2", "linestyle": "-"},
    "unit_norm": {"color": "#cc79a7", "linestyle": "-"},
    "spectral": {"color": "#009e73", "linestyle": "-"},
    "weight_decay": {"color": "#e69f00", "linestyle": "-"},
    "kinetic": {"color": "#56b4e9", "linestyle": "-"},
    "proper_time": {"color": "#d55e00", "linestyle": "-"},
    "equidistribution": {"color": "#000000", "linestyle": "-"},
}


def read_series(path: Path, key: str) -> tuple[list[int], list[float]]:
    """Return steps and values of one metric in a metrics.jsonl; rows without it are left out."""
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    found = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    return [step for step, _ in found], [value for _, value in found]


def drift_series(path: Path) -> tuple[list[int], list[float]]:
    """Return the orbit drift at each measurement, and before and after each projection, in this order within a step."""
    order = ("gauge/drift_before", "gauge/drift_after", "gauge/drift")
    points = sorted(
        (step, rank, value)
        for rank, key in enumerate(order)
        for step, value in zip(*read_series(path, key), strict=True)
    )
    return [step for step, _, _ in points], [value for _, _, value in points]


def draw(runs: Mapping[str, Path], picture: Path, title: str) -> Path:
    """Draw what the runs have in their metrics.jsonl and return the path of the picture.

    The lower panel is left out where no run has measured its drift.

    Args:
        runs: method → directory of the run, baseline first.
        picture: the PNG file to write.
        title: one line above the panels.
    """
    require("matplotlib", "the picture of a run")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measured = any(drift_series(directory / "metrics.jsonl")[0] for directory in runs.values())
    figure = Figure(figsize=(8, 6.4 if measured else 4), layout="constrained")
    FigureCanvasAgg(figure)  # draws to a file without a display, whatever backend is set
    panels = list(
        figure.subplots(1 + measured, 1, sharex=True, squeeze=False, height_ratios=(3, 2)[: 1 + measured]).flat
    )
    losses, drifts = panels[0], panels[1] if measured else None
    for method, directory in runs.items():
        path = directory / "metrics.jsonl"
        style = next((style for name, style in STYLES.items() if method.endswith(name)), {})
        name = method.replace("_", " ")
        losses.plot(*read_series(path, "val/loss"), label=f"{name}, validation", linewidth=1.8, **style)
        losses.plot(*read_series(path, "train/loss"), label=f"{name}, training", linewidth=0.7, alpha=0.7, **style)
        if drifts is not None:
            drifts.plot(*drift_series(path), label=name, linewidth=1.6, **style)
            steps, values = read_series(path, "gauge/drift_after")
            drifts.plot(
                steps, values, "o", markersize=4, color="#d55e00", label="after a projection" if steps else None
            )
    figure.suptitle(title, fontsize=11)
    losses.set(yscale="log", ylabel="loss")
    losses.legend(frameon=False, ncols=2, fontsize=9)
    if drifts is not None:
        drifts.set(yscale="log", ylabel="orbit drift  ‖log g*‖")
        drifts.legend(frameon=False, ncols=3, fontsize=9)
    panels[-1].set(xlabel="optimizer step")
    for axes in panels:
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=130, metadata={"Software": None})
    return picture
