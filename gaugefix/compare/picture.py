"""report.png: the main panels in one picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from gaugefix.compare.facts import counted
from gaugefix.compare.figures.canvas import line_style, marker_style, new_figure, settings
from gaugefix.compare.material import Material
from gaugefix.compare.panels import KINDS

MAIN = ("curves", "lr_map", "pareto")
"""Panels that are in it, from the top."""
WIDTH = 10.0
LEGEND = 4
"""Methods in a row of the legend."""


def draw_picture(material: Material, path: Path) -> Path:
    """Draw those of the main panels that the runs have something for, and return the path of the PNG."""
    kinds = [kind for kind in KINDS if kind.name in MAIN and kind.applies(material)]
    methods = material.results.methods
    legend = 0.45 + 0.22 * math.ceil(len(methods) / LEGEND)
    heights = [kind.height(material) + 0.3 for kind in kinds]
    with settings():
        figure = new_figure(WIDTH, legend + sum(heights))
        figure.set_facecolor("white")
        top, *parts = figure.subfigures(1 + len(kinds), 1, height_ratios=[legend, *heights], squeeze=False).flat
        top.suptitle(
            f"{material.results.recipe}: {counted(methods, 'method')} compared, each at its own best learning rate"
        )
        top.legend(handles=handles(material), ncols=LEGEND, loc="lower center", frameon=False)
        for part, kind in zip(parts, kinds, strict=True):
            part.suptitle(kind.title, fontsize=11, fontweight="bold")
            kind.draw(part, material)
        part_path = path.with_name(path.name + ".part")
        figure.savefig(part_path, format="png", dpi=130, metadata={"Software": None})
    part_path.replace(path)
    return path


def handles(material: Material) -> list[Any]:
    """Return a sample line for each method."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], linewidth=1.6, markersize=5, label=method, **marker_style(style), **line_style(style))
        for method in material.results.methods
        for style in [material.style(method)]
    ]
