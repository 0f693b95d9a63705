"""Drift by layer and step, one small map for each method, all on one scale."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gaugefix.compare.figures.canvas import brief
from gaugefix.compare.figures.probe import Probe
from gaugefix.compare.material import Judged, Material

ACROSS = 4
"""Maps in a row."""
FLOOR = 1e-12
"""A drift of zero is drawn as this."""
TITLE = 22
"""Letters of a title's line, from which a combined method is broken."""
NAME = 28
"""Letters of a layer's name at most."""
LABELS = 15
"""Layers that are named beside a map at most."""


def with_layers(material: Material) -> list[Judged]:
    """Return the methods whose drift was measured for each layer."""
    return [one for one in material.judged if one.layers]


def heatmap_height(material: Material) -> float:
    """Return the height of the panel, in inches."""
    shown = with_layers(material)
    deepest = max(len(one.layers) for one in shown)
    lines = max(heading(one, len(material.results.starts) > 1).count("\n") for one in shown)
    return 0.9 + math.ceil(len(shown) / ACROSS) * (0.55 + 0.15 * lines + min(0.16 * deepest, 2.4))


def draw_heatmap(figure: Any, material: Material) -> list[Probe]:
    """Draw log10 of the drift (root mean square over the layer's generators), mean over the seeds."""
    from matplotlib.ticker import MaxNLocator

    shown = with_layers(material)
    rows = math.ceil(len(shown) / ACROSS)
    grid = figure.subplots(rows, min(ACROSS, len(shown)), squeeze=False)
    values = [np.log10(np.maximum(layer_values(one)[2], FLOOR)) for one in shown]
    low, high = min(v.min() for v in values), max(v.max() for v in values)
    probes, named, image = [], None, None
    for k, (one, logs) in enumerate(zip(shown, values, strict=True)):
        axes = grid.flat[k]
        axes.set_gid(f"m{one.index}")
        axes.grid(False)
        steps, names, plain = layer_values(one)
        half = (steps[-1] - steps[0]) / max(1, len(steps) - 1) / 2 or 0.5
        extent = (steps[0] - half, steps[-1] + half, len(names) - 0.5, -0.5)
        image = axes.imshow(
            logs, cmap="cividis", vmin=low, vmax=high, extent=extent, aspect="auto", interpolation="none"
        )
        axes.set_title(heading(one, len(material.results.starts) > 1), fontsize=9)
        axes.tick_params(labelsize=8.5)
        axes.set_xticks(
            [
                tick
                for tick in MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(steps[0], steps[-1])
                if steps[0] <= tick <= steps[-1]
            ]
        )
        labels = short_names(names)
        ticks = range(0, len(names), max(1, math.ceil(len(names) / LABELS)))
        repeated = k % ACROSS and names == named
        axes.set_yticks(list(ticks), ["" if repeated else labels[t] for t in ticks])
        named = names
        if k // ACROSS == rows - 1 or k + ACROSS >= len(shown):
            axes.set_xlabel("optimizer step", fontsize=9)
        probes.append(
            Probe(axes, f"{one.method}, {one.start} start", grid=(steps, names, plain.tolist()), method=one.index)
        )
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_visible(False)
    bar = figure.colorbar(image, ax=grid, label="log₁₀ drift", location="bottom", aspect=50, shrink=0.5, pad=0.02)
    bar.solids.set_rasterized(True)
    bar.outline.set_visible(False)
    return probes


def heading(one: Judged, several: bool) -> str:
    """Return the title of a map, a combined method on two lines, with its start if there are several."""
    name = one.method.replace("+", "\n+", 1) if len(one.method) > TITLE else one.method
    return name + (f"\n{one.start} start" if several else "")


def short_names(names: list[str]) -> list[str]:
    """Return the names without the modules that all of them are in.

    Example:
        >>> short_names(["net.blocks.0.mlp:scale", "net.norm:scale"])
        ['blocks.0.mlp:scale', 'norm:scale']
    """
    paths = [name.split(".") for name in names]
    shared = 0
    while len(names) > 1 and len({tuple(path[: shared + 1]) for path in paths}) == 1:
        shared += 1
    return [brief(".".join(path[shared:]), NAME) for path in paths]


def layer_values(one: Judged) -> tuple[list[int], list[str], np.ndarray[Any, np.dtype[np.float64]]]:
    """Return steps, names of the layers, and their drift, shape (layers, steps), at the steps that all have."""
    steps = sorted(set.intersection(*(set(curve.steps.tolist()) for curve in one.layers.values())))
    table = [dict(zip(curve.steps.tolist(), curve.mean.tolist(), strict=True)) for curve in one.layers.values()]
    return steps, list(one.layers), np.array([[row[step] for step in steps] for row in table])
