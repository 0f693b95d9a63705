"""Parallel coordinates: one line for each setting, over everything that was swept, to the metric it reached."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from gaugefix.compare.figures.canvas import INK, ink
from gaugefix.compare.figures.probe import Probe
from gaugefix.compare.material import Material
from gaugefix.compare.results import Results
from gaugefix.compare.run import Run
from gaugefix.compare.selection import finished_values

SETTINGS = ("strength", "optimizer", "momentum", "widths", "model", "precision", "batch_size", "solver", "solver_steps")
"""Keys of the summary that are settings; they count as swept if the label of the method does not fix them."""


def axes_swept(results: Results) -> list[tuple[str, list[Any]]]:
    """Return what has more than one value, with its values in order: method, lr, start and further settings."""
    fixed = {key for key in SETTINGS if all(len(values_of(results, key, m)) < 2 for m in results.methods)}
    axes: list[tuple[str, list[Any]]] = [
        ("method", list(results.methods)),
        ("lr", list(results.lrs)),
        ("start", list(results.starts)),
    ]
    axes += [(key, sorted(values_of(results, key), key=str)) for key in SETTINGS if key not in fixed]
    return [axis for axis in axes if len(axis[1]) > 1]


def values_of(results: Results, key: str, method: str | None = None) -> set[str]:
    """Return the values of one setting as text."""
    return {str(run.summary[key]) for run in results.runs if key in run.summary and method in (None, run.method)}


def draw_parallel(figure: Any, material: Material) -> list[Probe]:
    """Draw a line for each setting, mean over its seeds; those that diverged end at the bottom, dashed."""
    results, swept = material.results, axes_swept(material.results)
    axes = figure.subplots()
    axes.grid(False)
    axes.set_xticks(range(len(swept) + 1), [*(name for name, _ in swept), results.monitor_key])
    axes.tick_params(length=0)
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in results.runs:
        groups.setdefault((run.method, *(coordinate(run, axis) for axis in swept)), []).append(run)
    scores = {at: finished_values(runs, results.monitor_key) for at, runs in groups.items()}
    means = [fmean(found) for found in scores.values() if found]
    low, high = min(means, default=0.0), max(means, default=1.0)
    probe = Probe(axes, results.monitor_key)
    for at, runs in groups.items():
        method, *places = at
        found = scores[at]
        end = (fmean(found) - low) / (high - low or 1.0) if found else -0.12
        if not results.maximize and found:
            end = 1 - end
        index = results.methods.index(method)
        nudge = 0.02 * (index / max(1, len(results.methods) - 1) - 0.5)  # lines of methods that share values part
        heights = [place + nudge * (axis[0] != "method") for place, axis in zip(places, swept, strict=True)] + [end]
        style = material.style(method)
        (line,) = axes.plot(
            range(len(heights)), heights, color=ink(style["color"]), linewidth=1.0, alpha=0.75 if found else 0.35,
            linestyle="-" if found else ":",
        )  # fmt: skip
        line.set_gid(f"m{index}")
        what = ", ".join(str(axis[1][round(p * (len(axis[1]) - 1))]) for p, axis in zip(places, swept, strict=True))
        probe.marks.append((index, len(swept), end, f"{what}: {f'{fmean(found):.3g}' if found else runs[0].outcome}"))
    label_axes(axes, swept, low, high, results)
    return [probe]


def coordinate(run: Run, axis: tuple[str, list[Any]]) -> float:
    """Return where a run crosses an axis, from 0 to 1."""
    name, values = axis
    value = getattr(run, name) if name in ("method", "lr", "start") else str(run.summary.get(name))
    return values.index(value) / (len(values) - 1) if value in values else 0.0


def label_axes(axes: Any, swept: list[tuple[str, list[Any]]], low: float, high: float, results: Results) -> None:
    """Draw the axes with their values."""
    ends = (low, high) if results.maximize else (high, low)
    columns = [(name, [(k / (len(v) - 1), text(one)) for k, one in enumerate(v)]) for name, v in swept]
    columns.append((results.monitor_key, [(0.0, f"{ends[0]:.3g}"), (1.0, f"{ends[1]:.3g}"), (-0.12, "diverged")]))
    for column, (_, marks) in enumerate(columns):
        axes.plot([column, column], [0, 1], color=INK, linewidth=0.8, zorder=3)
        for height, label in marks:
            left = column == 0
            axes.annotate(
                label, (column, height), xytext=(-5 if left else 5, 0), textcoords="offset points",
                ha="right" if left else "left", va="center", fontsize=8.5, gid="halo",
            )  # fmt: skip
    axes.set_xlim(-0.1, len(columns) - 1 + 0.25)


def text(value: Any) -> str:
    """Return a value of an axis."""
    return f"{value:g}" if isinstance(value, float) else str(value)
