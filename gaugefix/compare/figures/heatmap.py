"""Drift by layer and step, one small map for each method, all on one scale."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gaugefix.compare.figures.probe import Probe
from gaugefix.compare.material import Judged, Material

ACROSS = 4
"""Maps in a row."""
FLOOR = 1e-12
"""A drift of zero is drawn as this."""
LABELS = 8
"""Layers that are named beside a map at most."""


def with_layers(material: Material) -> list[Judged]:
    """Return the methods whose drift was measured for each layer."""
    return [one for one in material.judged if one.layers]


def heatmap_height(material: Material) -> float:
    """Return the height of the panel, in inches."""
    shown = with_layers(material)
    deepest = max(len(one.layers) for one in shown)
    return 0.6 + math.ceil(len(shown) / ACROSS) * (0.75 + min(0.16 * deepest, 2.4))


def draw_heatmap(figure: Any, material: Material) -> list[Probe]:
    """Draw log10 of the drift (root mean square over the layer's generators), mean over the seeds."""
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
        several = f"\n{one.start} start" if len(material.results.starts) > 1 else ""
        axes.set_title(one.method + several, fontsize=9)
        axes.tick_params(labelsize=8.5)
        axes.locator_params(axis="x", nbins=4)
        ticks = range(0, len(names), max(1, math.ceil(len(names) / LABELS)))
        repeated = k % ACROSS and names == named
        axes.set_yticks(list(ticks), ["" if repeated else brief(names[t]) for t in ticks])
        named = names
        if k // ACROSS == rows - 1 or k + ACROSS >= len(shown):
            axes.set_xlabel("optimizer step", fontsize=9)
        probes.append(
            Probe(axes, f"{one.method}, {one.start} start", grid=(steps, names, plain.tolist()), method=one.index)
        )
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_visible(False)
    bar = figure.colorbar(image, ax=grid, label="log₁₀ drift", aspect=30, pad=0.01)
    bar.solids.set_rasterized(True)
    bar.outline.set_visible(False)
    return probes


def layer_values(one: Judged) -> tuple[list[int], list[str], np.ndarray[Any, np.dtype[np.float64]]]:
    """Return steps, names of the layers, and their drift, shape (layers, steps), at the steps that all have."""
    steps = sorted(set.intersection(*(set(curve.steps.tolist()) for curve in one.layers.values())))
    table = [dict(zip(curve.steps.tolist(), curve.mean.tolist(), strict=True)) for curve in one.layers.values()]
    return steps, list(one.layers), np.array([[row[step] for step in steps] for row in table])


def brief(name: str, length: int = 18) -> str:
    """Return the end of a long name, which says more than its beginning."""
    return name if len(name) <= length else "…" + name[-length + 1 :]
