"""Evaluations of the field per solve, for neural ODEs, with the solver's error beside them."""

from __future__ import annotations

from statistics import fmean, stdev
from typing import Any

from gaugefix.compare.figures.canvas import INK, ink, log_ticks, marker_style
from gaugefix.compare.figures.probe import Probe
from gaugefix.compare.material import Judged, Material
from gaugefix.compare.selection import finished_values
from gaugefix.compare.table import plus_minus

COLUMNS = (("nfe", "NFE, evaluations of the field"), ("solver_error", "solver error"))
"""Key of the summary, label."""


def columns(material: Material) -> list[tuple[str, str]]:
    """Return the columns that some run has."""
    runs = material.results.runs
    return [column for column in COLUMNS if any(run.value(column[0]) is not None for run in runs)]


def draw_nfe(figure: Any, material: Material) -> list[Probe]:
    """Draw a row of bars for each start: evaluations, and the error they leave."""
    starts, shown = material.results.starts, columns(material)
    grid = figure.subplots(len(starts), len(shown), sharey="row", sharex="col", squeeze=False)
    probes = []
    for axes_row, start in zip(grid, starts, strict=True):
        methods = material.of(start)
        for axes, (key, label) in zip(axes_row, shown, strict=True):
            probes.append(draw_bars(axes, methods, key, f"{label}, {start} start"))
            axes.set_title(f"{start} start")
            axes.set_xlabel(label)
            axes.grid(axis="y", visible=False)
            if key == "solver_error":
                log_ticks(axes, "x")
        axes_row[0].set_yticks(range(len(methods)), [one.method for one in methods])
        axes_row[0].set_ylim(len(methods) - 0.4, -0.6)
    return probes


def draw_value(axes: Any, row: int, value: float, one: Judged, bar: bool) -> None:
    """Draw a bar from zero; a marker on a logarithmic axis, which has no zero."""
    if bar:
        artist = axes.barh(row, value, height=0.62, color=ink(one.style["color"]))[0]
    else:
        color = ink(one.style["color"])
        (artist,) = axes.plot([value], [row], linestyle="", markersize=8, color=color, **marker_style(one.style))
    artist.set_gid(f"m{one.index}")


def draw_bars(axes: Any, methods: tuple[Judged, ...], key: str, title: str) -> Probe:
    """Draw one bar or marker for each method, with its standard deviation over the seeds."""
    probe = Probe(axes, title)
    for row, one in enumerate(methods):
        values = finished_values(one.runs, key)
        if not values:
            continue
        spread = stdev(values) if len(values) > 1 else None
        draw_value(axes, row, fmean(values), one, bar=key == "nfe")
        if spread:
            (dots,) = axes.plot([fmean(values) - spread, fmean(values) + spread], [row, row], color=INK, linewidth=1)
            dots.set_gid(f"m{one.index}")
        text = plus_minus(fmean(values), spread)
        probe.marks.append((one.index, fmean(values), row, f"{one.method}: {text}"))
    return probe
