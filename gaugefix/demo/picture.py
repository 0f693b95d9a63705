"""The picture of one or several runs: loss above, orbit drift below, on the same steps."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gaugefix.demo.extras import require

# Okabe and Ito's palette first, Tol's muted palette for the terms, which colour-blind people can tell apart within
# each; never alone: slices are solid, terms dash-dotted, controls dotted, and every method has a marker of its own.
# The baseline is grey and dashed everywhere. Black is drawn in the colour of the text where a page is dark.
STYLES: Mapping[str, Mapping[str, Any]] = {
    "baseline": {"color": "#7f7f7f", "linestyle": "--", "marker": "o"},
    "minimal_norm": {"color": "#0072b2", "linestyle": "-", "marker": "s"},
    "unit_norm": {"color": "#cc79a7", "linestyle": "-", "marker": "^"},
    "spectral": {"color": "#009e73", "linestyle": "-", "marker": "D"},
    "flat": {"color": "#882255", "linestyle": "-", "marker": "v"},
    "reference": {"color": "#6699cc", "linestyle": "-", "marker": "<"},
    "weight_decay": {"color": "#e69f00", "linestyle": "-", "marker": "P"},
    "kinetic": {"color": "#56b4e9", "linestyle": "-", "marker": ">"},
    "proper_time": {"color": "#d55e00", "linestyle": "-", "marker": "X"},
    "equidistribution": {"color": "#000000", "linestyle": "-", "marker": "*"},
    "l2": {"color": "#999933", "linestyle": "-.", "marker": "P", "fillstyle": "none"},
    "charge": {"color": "#cc3311", "linestyle": "-.", "marker": "X", "fillstyle": "none"},
    "balance": {"color": "#117733", "linestyle": "-.", "marker": "d"},
    "soft_unit_norm": {"color": "#aa4499", "linestyle": "-.", "marker": "^", "fillstyle": "none"},
    "soft_reference": {"color": "#4477aa", "linestyle": "-.", "marker": "<", "fillstyle": "none"},
    "orthogonality": {"color": "#44aa99", "linestyle": "-.", "marker": ">", "fillstyle": "none"},
    "depth_smoothness": {"color": "#997700", "linestyle": "-.", "marker": "*", "fillstyle": "none"},
    "path_norm": {"color": "#cc6677", "linestyle": ":", "marker": "o", "fillstyle": "none"},
    "product_of_norms": {"color": "#aa7744", "linestyle": ":", "marker": "s", "fillstyle": "none"},
    "nuclear_norm": {"color": "#7755bb", "linestyle": ":", "marker": "D", "fillstyle": "none"},
}
DASHES = ((0, (5, 1.2)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)), (0, (6, 1, 1, 1, 1, 1)))
SHADES = (1.35, 0.78)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "d", "<", ">")
SPARE = ("#777711", "#5577cc", "#bb5566", "#228899", "#aa5500", "#8855aa")
"""Colours of methods that have none of their own."""
TURNS = 60
"""How often a style is drawn at most."""


def style_of(method: str, turn: int = 0) -> dict[str, Any]:
    """Return colour, dashes and marker of a method, the same everywhere.

    ``charge:0.1`` and ``minimal_norm@1`` look as ``charge`` and ``minimal_norm`` do. Drawn anew, and for combinations
    such as ``flat+weight_decay:1e-3``, a method has the colour of what its label begins with, in another lightness, and
    dashes and a marker that depend on the label.

    Args:
        method: a label; names that are not in :data:`STYLES` get a colour that depends on the name alone.
        turn: how often to draw anew, where two methods would look alike.
    """
    if method in STYLES and not turn:
        return dict(STYLES[method])
    name = re.split(r"[:@+]", method, maxsplit=1)[0]
    base = STYLES.get(name) or next((STYLES[known] for known in STYLES if name.endswith("_" + known)), None)
    if base is not None and "+" not in method and not turn:
        return dict(base)
    draw = zlib.crc32(method.encode("utf-8")) + turn
    color = str(base["color"]) if base else SPARE[zlib.crc32(name.encode("utf-8")) % len(SPARE)]
    return {
        "color": shaded(color, SHADES[draw % len(SHADES)]),
        "linestyle": DASHES[draw % len(DASHES)],
        "marker": MARKERS[draw % len(MARKERS)],
        "fillstyle": ("full", "none")[draw // len(MARKERS) % 2],
    }


def styles_of(methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the style of each method; one that would look like another before it is drawn anew."""
    styles: dict[str, dict[str, Any]] = {}
    lines, markers = set(), set()
    for method in sorted(methods, key=lambda method: method not in STYLES):  # those with a style of their own keep it
        looks = (style_of(method, turn) for turn in range(TURNS))
        drawn = [
            (style, (style["color"], style["linestyle"]), (style["marker"], style.get("fillstyle", "full")))
            for style in looks
        ]
        style, line, marker = next((one for one in drawn if one[1] not in lines and one[2] not in markers), drawn[0])
        styles[method] = style
        lines.add(line)
        markers.add(marker)
    return styles


def shaded(color: str, factor: float) -> str:
    """Return ``#rrggbb`` darker (factor below 1), or lighter by as much of the way to white (above 1)."""
    channels = [int(color[k : k + 2], 16) for k in (1, 3, 5)]
    mixed = [c * factor if factor <= 1 else c + (255 - c) * (factor - 1) for c in channels]
    return "#" + "".join(f"{round(c):02x}" for c in mixed)


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
        style = {key: value for key, value in style_of(method).items() if key in ("color", "linestyle")}
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
    return save(figure, panels, picture)


def save(figure: Any, panels: Sequence[Any], picture: Path) -> Path:
    """Give panels over the steps of training their grid and their common axis, and write the PNG file."""
    panels[-1].set(xlabel="optimizer step")
    for axes in panels:
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=130, metadata={"Software": None})
    return picture
