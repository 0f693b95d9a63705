"""The residual of the slice over the steps, with the projections marked."""

from __future__ import annotations

from typing import Any

import numpy as np

from gaugefix.compare.figures.canvas import brief, ink, log_ticks, step_ticks
from gaugefix.compare.figures.curves import draw_lines
from gaugefix.compare.figures.probe import Probe
from gaugefix.compare.material import Judged, Material

MARKS = 24
"""Projections that are marked at most, for each method."""
LABEL = 24
"""Letters of a method's name at most."""


def draw_residual(figure: Any, material: Material) -> list[Probe]:
    """Draw one axes for each start; below it a rail with a tick for every projection of every method."""
    starts = material.results.starts
    projected = {start: [one for one in material.of(start) if one.projections] for start in starts}
    lanes = max(len(methods) for methods in projected.values())
    rows = 2 if lanes else 1
    grid = figure.subplots(
        rows, len(starts), sharex="col", sharey="row", squeeze=False, height_ratios=(10, max(1.2, 0.75 * lanes))[:rows]
    )
    probes = []
    for column, start in enumerate(starts):
        axes = grid[0, column]
        axes.set_title(f"{start} start")
        probes.append(draw_lines(axes, material.of(start), "residual", f"slice residual, {start} start"))
        if lanes:
            draw_rail(grid[1, column], projected[start])
        grid[-1, column].set_xlabel("optimizer step")
        step_ticks(grid[-1, column])
    grid[0, 0].set_ylabel("slice residual")
    log_ticks(grid[0, 0])
    return probes


def draw_rail(axes: Any, methods: list[Judged]) -> None:
    """Draw a lane for each method, with a tick at each projection; a solid bar where they are too many."""
    axes.set_yticks(range(len(methods)), [brief(one.method, LABEL) for one in methods], fontsize=8.5)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.tick_params(left=False)
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    for lane, one in enumerate(methods):
        steps = np.array(one.projections)
        if len(steps) > MARKS:
            lines = axes.plot(
                steps[[0, -1]], [lane, lane], color=ink(one.style["color"]), linewidth=5, solid_capstyle="butt"
            )
        else:
            lines = axes.plot(
                steps, np.full(len(steps), lane), linestyle="", marker="|", markersize=8, markeredgewidth=1.6,
                color=ink(one.style["color"]),
            )  # fmt: skip
        lines[0].set_gid(f"m{one.index}")
