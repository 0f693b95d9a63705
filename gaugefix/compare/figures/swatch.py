"""The sample of a method's line and marker beside its name in the legend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gaugefix.compare.figures.canvas import inline_svg, line_style, marker_style, new_figure, settings


def swatch(name: str, style: Mapping[str, Any]) -> str:
    """Return a small inline SVG.

    Args:
        name: identifier that no other picture of the page has.
        style: color, linestyle and marker.
    """
    with settings():
        figure = new_figure(0.5, 0.17)
        figure.set_layout_engine("none")
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_axis_off()
        sample = {**marker_style(style), **line_style(style)}
        axes.plot([0, 1, 2], [0, 0, 0], linewidth=1.8, markersize=6, markevery=[1], **sample)
        axes.set_xlim(0, 2)
        svg = inline_svg(figure, name, "")
    return svg.replace('role="img" aria-label=""', 'aria-hidden="true"').replace('class="plot"', 'class="swatch"')
