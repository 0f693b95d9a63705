"""The final metric against what it costs: distance to the slice, and step overhead."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from gaugefix.compare.figures.canvas import INK, ink, log_ticks, marker_style
from gaugefix.compare.figures.probe import Probe
from gaugefix.compare.material import Judged, Material
from gaugefix.compare.selection import finished_values
from gaugefix.compare.table import plus_minus

COSTS = (("gauge_drift_final", "final drift ‖log g*‖"), ("overhead_pct", "step overhead in %"))
"""Key of the summary, label; less is better."""


def costs(material: Material) -> list[tuple[str, str]]:
    """Return the costs that at least two methods have, positive everywhere, as a logarithmic axis needs."""
    found = []
    for key, label in COSTS:
        values = [fmean(v) for one in material.judged if (v := finished_values(one.runs, key))]
        if len(values) > 1 and min(values) > 0:
            found.append((key, label))
    return found


def draw_pareto(figure: Any, material: Material) -> list[Probe]:
    """Draw a row for each start, a column for each cost; methods that no other beats in both are joined by a line."""
    results, shown = material.results, costs(material)
    grid = figure.subplots(len(results.starts), len(shown), sharey="row", sharex="col", squeeze=False)
    key = final_key(material)
    probes = []
    for row, start in zip(grid, results.starts, strict=True):
        row[0].set_ylabel(key)
        for axes, (cost, label) in zip(row, shown, strict=True):
            axes.set_title(f"{start} start")
            axes.set_xlabel(label if start == results.starts[-1] else "")
            probes.append(draw_points(axes, material.of(start), key, cost, results.maximize, label))
    for column, _ in enumerate(shown):
        log_ticks(grid[0, column], "x")
    return probes


def final_key(material: Material) -> str:
    """Return the key of the monitored metric at the end of training; its best value where the end is not there."""
    final = material.results.monitor.replace("/", "_") + "_final"
    has = any(run.value(final) is not None for run in material.results.runs)
    return final if has else material.results.monitor_key


def draw_points(axes: Any, methods: Sequence[Judged], key: str, cost: str, maximize: bool, label: str) -> Probe:
    """Draw each method as its marker, and the front."""
    probe = Probe(axes, f"{key} and {label}, {methods[0].start} start" if methods else label)
    points = []
    for one in methods:
        values, prices = finished_values(one.runs, key), finished_values(one.runs, cost)
        if not values or not prices:
            continue
        x, y = fmean(prices), fmean(values)
        points.append((x, y, one.index))
        (dot,) = axes.plot(
            [x], [y], linestyle="", markersize=8, color=ink(one.style["color"]), **marker_style(one.style)
        )
        dot.set_gid(f"m{one.index}")
        text = f"{one.method}: {plus_minus(y, None)}, {label} {plus_minus(x, None)}"
        probe.marks.append((one.index, x, y, text))
    best = front([(x, y) for x, y, _ in points], maximize)
    for x, y, index in points:
        if (x, y) in best:
            (ring,) = axes.plot(
                [x], [y], "o", markersize=15, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=0.8
            )
            ring.set_gid(f"m{index}")
    axes.plot([x for x, _ in best], [y for _, y in best], color=INK, linewidth=0.9, linestyle=":", zorder=1)
    axes.margins(0.1, 0.12)
    return probe


def front(points: Sequence[tuple[float, float]], maximize: bool) -> list[tuple[float, float]]:
    """Return the points that no other beats in both, cost rising.

    Example:
        >>> front([(1.0, 0.9), (2.0, 0.8), (3.0, 0.95)], maximize=True)
        [(1.0, 0.9), (3.0, 0.95)]
    """
    kept: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1] if maximize else point[1])):
        if not kept or (y > kept[-1][1] if maximize else y < kept[-1][1]):
            kept.append((x, y))
    return kept
