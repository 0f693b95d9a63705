"""Which panels a report has: each with its picture, its numbers, and a sentence that says what to look for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gaugefix.compare.figures.canvas import WIDTH, inline_svg, new_figure, settings
from gaugefix.compare.figures.curves import JUMP, draw_curves
from gaugefix.compare.figures.heatmap import draw_heatmap, heatmap_height, with_layers
from gaugefix.compare.figures.lr_map import draw_lr_map
from gaugefix.compare.figures.nfe import columns, draw_nfe
from gaugefix.compare.figures.parallel import axes_swept, draw_parallel
from gaugefix.compare.figures.pareto import costs, draw_pareto
from gaugefix.compare.figures.probe import Probe
from gaugefix.compare.figures.residual import draw_residual
from gaugefix.compare.history import POINTS
from gaugefix.compare.material import Material


@dataclass(frozen=True)
class Kind:
    """A kind of panel.

    Args:
        name: identifier.
        title: heading.
        look: what to look for, one sentence or two.
        draw: into a figure; returns the numbers of its axes.
        height: in inches.
        applies: whether the runs have what it shows.
    """

    name: str
    title: str
    look: str
    draw: Callable[[Any, Material], list[Probe]]
    height: Callable[[Material], float]
    applies: Callable[[Material], bool]


@dataclass(frozen=True)
class Panel:
    """A panel as the page has it."""

    name: str
    title: str
    look: str
    svg: str
    probes: list[dict[str, Any]]


KINDS = (
    Kind(
        "curves",
        "Loss curves and drift",
        "Look for curves that fall earlier or end lower than the grey dashed baseline by more than the bands are wide, "
        "and whether the drift below them stays down; each method runs at its own best learning rate. "
        f"Line: mean over the seeds; band: smallest to greatest seed; at most {POINTS} points of a curve are kept, "
        f"and the axis of losses ends at {JUMP:g} times the greatest loss of the median method.",
        draw_curves,
        lambda m: 5.2 if any(one.drift for one in m.judged) else 3.4,
        lambda m: any(one.loss for one in m.judged),
    ),
    Kind(
        "heatmap",
        "Drift by layer and step",
        "Look for layers that stay bright: there the parameters move along their orbit, away from the slice. "
        "All maps share one scale.",
        draw_heatmap,
        heatmap_height,
        lambda m: bool(with_layers(m)),
    ),
    Kind(
        "residual",
        "Slice residual and projections",
        "Look for the residual falling at each tick of the rail, where the method projects, and growing again between; "
        "a solid bar means more projections than can be drawn apart.",
        draw_residual,
        lambda m: 3.2 + 0.2 * max(sum(bool(one.projections) for one in m.of(start)) for start in m.results.starts),
        lambda m: any(one.residual for one in m.judged),
    ),
    Kind(
        "lr_map",
        "Learning rate × method",
        "Look for rows whose coloured part reaches further to the right: these methods bear larger learning rates. "
        "The colour goes by rank, bright is good. "
        "Hatched cells diverged or had not learned (✕ counts the seeds); a frame marks a method's best learning rate.",
        draw_lr_map,
        lambda m: 1.1 + 0.36 * len(m.results.methods),
        lambda m: bool(m.results.lrs),
    ),
    Kind(
        "nfe",
        "Function evaluations of the neural ODE",
        "Look for short bars whose error beside them is not larger: fewer evaluations for the same accuracy. "
        "The thin line is ± one standard deviation over the seeds.",
        draw_nfe,
        lambda m: 0.6 + len(m.results.starts) * (0.7 + 0.26 * len(m.results.methods)),
        lambda m: "nfe" in [key for key, _ in columns(m)],
    ),
    Kind(
        "pareto",
        "Final metric against its cost",
        "Look for methods with a ring: no other is better in both. Every other one is beaten by one of them.",
        draw_pareto,
        lambda m: 0.4 + 2.6 * len(m.results.starts),
        lambda m: bool(costs(m)),
    ),
    Kind(
        "parallel",
        "Everything that was swept",
        "Look for values whose lines all end high (good) or low; dotted lines that end below the axis diverged. "
        "One line is the mean over the seeds of one setting.",
        draw_parallel,
        lambda m: 1.2 + 0.3 * max(6, len(m.results.methods)),
        lambda m: len(axes_swept(m.results)) >= 3,
    ),
)
"""In the order of the page."""


def panels(material: Material) -> list[Panel]:
    """Draw every panel that the runs have something for."""
    found = []
    single = len(material.results.seeds) == 1
    for kind in KINDS:
        if not kind.applies(material):
            continue
        with settings():
            figure = new_figure(WIDTH, kind.height(material))
            probes = kind.draw(figure, material)
            svg = inline_svg(figure, kind.name, f"{kind.title}. {kind.look}")
            data = [probe.data() for probe in probes]
        found.append(Panel(kind.name, kind.title, kind.look + " n = 1 seed: no spread." * single, svg, data))
    return found
