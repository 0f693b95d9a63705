"""Learning rate × method: the monitored metric in each cell, diverged cells hatched."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from gaugefix.compare.figures.canvas import INK
from gaugefix.compare.figures.probe import Probe
from gaugefix.compare.material import Material
from gaugefix.compare.results import Results
from gaugefix.compare.run import Run
from gaugefix.compare.selection import best_lr, finished_values


def draw_lr_map(figure: Any, material: Material) -> list[Probe]:
    """Draw one map for each start. The best learning rate of a method has a frame."""
    from matplotlib import colormaps

    results = material.results
    cells = {
        (start, method, lr): runs
        for start in results.starts
        for method in results.methods
        for lr in results.lrs
        if (runs := results.select(method, start, lr))
    }
    means = sorted({fmean(v) for runs in cells.values() if (v := finished_values(runs, results.monitor_key))})
    colors = colormaps["cividis" if results.maximize else "cividis_r"]

    def color(mean: float) -> Any:
        """By rank: one far value would leave the others without a difference."""
        return colors(means.index(mean) / max(1, len(means) - 1))

    grid = figure.subplots(1, len(results.starts), sharey=True, squeeze=False)[0]
    probes = []
    for axes, start in zip(grid, results.starts, strict=True):
        prepare(axes, results, start)
        probe = Probe(axes, f"{results.monitor_key}, {start} start")
        for row, method in enumerate(results.methods):
            best = best_lr(results, method, start)
            for column, lr in enumerate(results.lrs):
                runs = cells.get((start, method, lr), ())
                if runs:
                    draw_cell(axes, row, column, runs, results, color, lr == best)
                    probe.marks.append((row, column, row, described(method, lr, runs, results.monitor_key)))
        probes.append(probe)
    grid[0].set_yticks(range(len(results.methods)), results.methods)
    return probes


def prepare(axes: Any, results: Results, start: str) -> None:
    """Set up the axes of one start."""
    axes.set_title(f"{start} start")
    axes.set_xlabel("learning rate")
    axes.set_xticks(range(len(results.lrs)), [f"{lr:g}" for lr in results.lrs])
    axes.set_xlim(-0.5, len(results.lrs) - 0.5)
    axes.set_ylim(len(results.methods) - 0.5, -0.5)
    axes.grid(False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_cell(
    axes: Any, row: int, column: int, runs: tuple[Run, ...], results: Results, color: Any, best: bool
) -> None:
    """Draw one cell: coloured by the mean of the runs that finished, hatched if one did not, or had not learned."""
    from matplotlib.patches import Rectangle

    values = finished_values(runs, results.monitor_key)
    lost = sum(not results.learned(run) for run in runs)
    face = color(fmean(values)) if values else "none"
    low = column - 0.46, row - 0.44
    patch = Rectangle(low, 0.92, 0.88, facecolor=face, edgecolor="none", linewidth=0)
    axes.add_patch(patch).set_gid(f"m{row}")
    if lost:
        mesh = Rectangle(low, 0.92, 0.88, facecolor="none", edgecolor=INK, hatch="////", linewidth=0.5, alpha=0.55)
        axes.add_patch(mesh).set_gid(f"m{row}")
    if best:
        frame = Rectangle(low, 0.92, 0.88, facecolor="none", edgecolor=INK, linewidth=1.8)
        axes.add_patch(frame).set_gid(f"m{row}")
    text, tone = (short(fmean(values)), contrast(face)) if values else (outcome(runs), INK)
    if lost and values:
        text += f"\n✕ {lost} of {len(runs)}"
    box = {"facecolor": face, "edgecolor": "none", "pad": 1.0} if lost and values else None
    axes.text(column, row, text, ha="center", va="center", fontsize=8.5, color=tone, bbox=box).set_gid(f"m{row}")


def contrast(face: Any) -> str:
    """Return black or white, whichever can be read on a colour."""
    red, green, blue = face[:3]
    return "#111111" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "#ffffff"


def short(value: float) -> str:
    """Return a number in the width of a cell."""
    return f"{value:.3f}" if 0.001 <= abs(value) < 100 else f"{value:.1e}"


def outcome(runs: tuple[Run, ...]) -> str:
    """Return what to write into a cell without a value."""
    return "failed" if all(run.outcome == "failed" for run in runs) else "diverged"


def described(method: str, lr: float, runs: tuple[Run, ...], key: str) -> str:
    """Return the read-out of a cell: every seed's value, or what became of it."""
    found = (run.value(key) if run.outcome == "finished" else None for run in runs)
    values = ", ".join(run.outcome if v is None else short(v) for v, run in zip(found, runs, strict=True))
    return f"{method}, lr {lr:g}: {values}"
