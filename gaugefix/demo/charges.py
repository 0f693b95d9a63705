"""The picture of Noether charges: measured against what weight decay should make of them."""

from __future__ import annotations

import json
from pathlib import Path

from gaugefix.demo.extras import require
from gaugefix.demo.picture import read_series, save

CHARGE, PREDICTED = "charge", "charge_predicted"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#5254a3")
"""Okabe and Ito's palette, which colour-blind people can tell apart, and two more."""


def charge_names(metrics: Path) -> list[str]:
    """Return the prefix of every charge in a metrics.jsonl: ``gauge`` for all together, then one per symmetry."""
    with metrics.open(encoding="utf-8") as lines:
        keys = dict.fromkeys(key for line in lines for key in json.loads(line))
    found = [key.removesuffix(f"/{CHARGE}") for key in keys if key.startswith("gauge/") and key.endswith(f"/{CHARGE}")]
    return sorted(found, key=lambda name: name != "gauge")


def deviations(metrics: Path, name: str = "gauge") -> tuple[list[int], list[float]]:
    """Return the steps and measured/predicted − 1 wherever there is a prediction other than 0."""
    predicted = dict(zip(*read_series(metrics, f"{name}/{PREDICTED}"), strict=True))
    points = [
        (step, value / predicted[step] - 1.0)
        for step, value in zip(*read_series(metrics, f"{name}/{CHARGE}"), strict=True)
        if predicted.get(step)
    ]
    return [step for step, _ in points], [value for _, value in points]


def draw_charges(directory: Path, picture: Path, title: str) -> Path | None:
    """Draw the charges in a run's metrics.jsonl, dots, and their predicted decay, lines; return the picture's path.

    Below, by how much they differ. Returns None, and draws nothing, where no charge was logged.

    Args:
        directory: of the run.
        picture: the PNG file to write.
        title: one line above the panels.
    """
    require("matplotlib", "the picture of the charges")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics = directory / "metrics.jsonl"
    names = charge_names(metrics)
    if not names:
        return None
    lawful = any(deviations(metrics, name)[0] for name in names)
    figure = Figure(figsize=(8, 6.4 if lawful else 4), layout="constrained")
    FigureCanvasAgg(figure)  # draws to a file without a display, whatever backend is set
    panels = list(figure.subplots(1 + lawful, 1, sharex=True, squeeze=False, height_ratios=(3, 2)[: 1 + lawful]).flat)
    for k, name in enumerate(names):
        whole = name == "gauge"
        colour = "#000000" if whole else COLOURS[(k - 1) % len(COLOURS)]
        label = "all" if whole else name.removeprefix("gauge/").removesuffix(":scale")
        weight = 1.8 if whole else 1.0
        panels[0].plot(*read_series(metrics, f"{name}/{PREDICTED}"), color=colour, linewidth=weight)
        panels[0].plot(*read_series(metrics, f"{name}/{CHARGE}"), "o", color=colour, ms=2 + 2 * weight, label=label)
        if lawful:
            steps, values = deviations(metrics, name)
            panels[1].plot(steps, [100 * value for value in values], "o-", color=colour, ms=1 + weight, lw=weight)
    figure.suptitle(f"{title}\ndots: measured, lines: q(0)·exp(−2·wd·t)", fontsize=10)
    panels[0].set(yscale="log", ylabel="Noether charge  ‖q‖")
    panels[0].legend(frameon=False, ncols=3, fontsize=8)
    if lawful:
        panels[1].axhline(0.0, color="#7f7f7f", linewidth=0.8)
        panels[1].set(ylabel="measured/predicted − 1  (%)")
    return save(figure, panels, picture)
