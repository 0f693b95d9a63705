"""Loss curves with a band over the seeds, and the drift below them on the same steps."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from gaugefix.compare.figures.canvas import line_style, log_ticks, marker_style, step_ticks
from gaugefix.compare.figures.probe import Probe
from gaugefix.compare.history import Curve
from gaugefix.compare.material import Judged, Material
from gaugefix.compare.results import is_baseline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

JUMP = 10.0
"""The axis of losses ends at so many times the greatest loss of the median method: a jump would hide the rest."""
MARKERS = 6
"""Markers along a curve, about; they tell curves apart without colour."""


def draw_curves(figure: Any, material: Material) -> list[Probe]:
    """Draw one column for each start: loss above, drift below where it was measured."""
    starts = material.results.starts
    measured = any(one.drift is not None for one in material.judged)
    grid = figure.subplots(
        1 + measured, len(starts), sharex="col", sharey="row", squeeze=False, height_ratios=(3, 2)[: 1 + measured]
    )
    probes = []
    for column, start in enumerate(starts):
        losses = grid[0, column]
        losses.set_title(f"{start} start")
        probes.append(draw_lines(losses, material.of(start), "loss", f"{material.loss_name}, {start} start"))
        if measured:
            probes.append(draw_lines(grid[1, column], material.of(start), "drift", f"drift, {start} start"))
        grid[-1, column].set_xlabel("optimizer step")
        step_ticks(grid[-1, column])
    for row, name in zip(grid, (material.loss_name, "orbit drift ‖log g*‖"), strict=False):
        row[0].set_ylabel(name)
        log_ticks(row[0])
    cut_jumps(grid[0, 0], [one.loss for one in material.judged if one.loss is not None])
    return probes


def cut_jumps(axes: Axes, curves: list[Curve]) -> None:
    """Let the axis end above what curves usually reach, where one goes far beyond."""
    if not curves:
        return
    most = JUMP * statistics.median(max(curve.mean) for curve in curves)
    if most < axes.get_ylim()[1]:
        axes.set_ylim(top=most)


def draw_lines(axes: Axes, methods: tuple[Judged, ...], attribute: str, title: str) -> Probe:
    """Draw one curve for each method."""
    probe = Probe(axes, title)
    for place, one in enumerate(methods):
        curve: Curve | None = getattr(one, attribute)
        if curve is None:
            continue
        draw_line(axes, one, curve, place)
        probe.curves[one.index] = curve
    return probe


def draw_line(axes: Axes, one: Judged, curve: Curve, place: int) -> None:
    """Draw a curve with its band and some markers, which are not at the same steps for every method."""
    gid, style = f"m{one.index}", line_style(one.style)
    if curve.seeds > 1:
        band = axes.fill_between(curve.steps, curve.low, curve.high, color=style["color"], alpha=0.13, linewidth=0)
        band.set_gid(gid)
    every = max(1, len(curve.steps) // MARKERS)
    (line,) = axes.plot(
        curve.steps,
        curve.mean,
        linewidth=1.6,
        markersize=4.5,
        markevery=(place % every, every),
        label=one.method,
        zorder=2.5 if is_baseline(one.method) else 2,  # what all are compared with stays in sight
        **marker_style(one.style),
        **style,
    )
    line.set_gid(gid)
