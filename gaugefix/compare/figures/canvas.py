"""Figures that give the same bytes for the same runs, and SVG that fits into a page: inline, light or dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gaugefix.demo.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"
"""Colour of text and axes; becomes the page's own colour of text."""
WIDTH = 9.0
"""Of a panel, in inches."""
SETTINGS = {
    "svg.fonttype": "none",  # text stays text: small, searchable, and in the page's font
    "svg.hashsalt": "gaugefix",  # names that do not differ from run to run
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "legend.fontsize": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.14,
    "grid.linewidth": 0.6,
    "figure.facecolor": "none",  # the page's own paper
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "hatch.color": INK,
    "hatch.linewidth": 0.7,
    "figure.constrained_layout.use": True,
}


BETWEEN = ((4, (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)), (12, (1.0, 2.0, 3.0, 5.0, 7.0)), (150, (1.0, 2.0, 5.0)))
"""Reach of a logarithmic axis → digits that are labelled; beyond, powers of ten are enough."""


@contextmanager
def settings() -> Iterator[None]:
    """Draw with our settings alone, whatever the person's own matplotlibrc says."""
    require("matplotlib", "the pictures of a report")
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)  # type: ignore[arg-type]
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of so many inches that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def line_style(style: Mapping[str, Any]) -> dict[str, Any]:
    """Return colour and dashes for a line; black becomes the colour of the text."""
    return {"color": ink(style["color"]), "linestyle": style["linestyle"]}


def marker_style(style: Mapping[str, Any]) -> dict[str, Any]:
    """Return shape and filling of a marker."""
    return {"marker": style["marker"], "fillstyle": style.get("fillstyle", "full")}


def ink(color: str) -> str:
    """Return a colour, black as the colour of the text."""
    return INK if color == "#000000" else color


def log_ticks(axes: Axes, which: str = "y") -> None:
    """Make an axis logarithmic, with tick labels such as 10⁻³ in plain text."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis = getattr(axes, f"{which}axis")
    if not math.isfinite(axis.get_minpos()):
        return  # nothing positive: zeros, on a linear axis
    getattr(axes, f"set_{which}scale")("log")
    axis.set_major_locator(LogLocator(numticks=7))
    axis.set_major_formatter(FuncFormatter(lambda value, _: power(value)))
    axis.set_minor_locator(NullLocator())
    low, high = sorted(getattr(axes, f"get_{which}lim")())
    between = next((subs for reach, subs in BETWEEN if high < reach * low), None)
    if between:
        axis.set_major_locator(LogLocator(subs=between, numticks=9))


def step_ticks(axes: Axes) -> None:
    """Label whole steps only."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=True, min_n_ticks=1))


def power(value: float) -> str:
    """Return ``10⁻³`` for 0.001, ``2×10⁻⁴`` for 0.0002, and numbers near one as they are."""
    if value <= 0:
        return "0"
    mantissa, exponent = f"{value:.0e}".split("e")
    if -2 <= int(exponent) <= 2:
        return f"{value:g}"
    if "." in f"{value / 10.0 ** int(exponent):.3g}":
        mantissa = f"{value / 10.0 ** int(exponent):.3g}"
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if mantissa == "1" else f"{mantissa}×10{raised}"


def brief(name: str, length: int) -> str:
    """Return the end of a long name, which says more than its beginning."""
    return name if len(name) <= length else "…" + name[-length + 1 :]


def inline_svg(figure: Figure, name: str, label: str) -> str:
    """Return the figure as SVG for the inside of a page.

    Artists with a gid ``m3`` become ``class="m m3"``, for the page to hide and show; other names get ``name`` in front,
    so that the figures of a page do not share one.

    Args:
        figure: drawn within :func:`settings`.
        name: of the panel, an identifier.
        label: what a screen reader says.
    """
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<style type=\"text/css\">.*?</style>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    view = re.search(r'viewBox="([^"]+)"', svg)
    head = f'<svg class="plot" role="img" aria-label="{attribute(label)}" viewBox="{view[1] if view else ""}">'
    svg = re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1)
    svg = re.sub(r'<g id="(m\d+)"', r'<g class="m \1"', svg)
    svg = svg.replace('<g id="halo"', '<g class="halo"')
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)
    svg = re.sub(r'(?:xlink:)?href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    svg = svg.replace("xlink:href=", "href=").replace(INK, "currentColor")
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"-?\d+\.\d{3,}", short, tag[0]), svg)
    return compact(svg)


def compact(svg: str) -> str:
    """Return the same picture in fewer bytes: what is the default, or the page's own style, is not said again."""
    svg = re.sub(r"\s*\n\s*", "\n", svg).strip()
    for needless in (
        r" ?font-family: 'DejaVu Sans';?",
        r" ?font-weight: 400;?",
        r" ?stroke-linejoin: miter;?",
        r' transform="rotate\(-?0 [^)]*\)"',
        r"<defs>\n</defs>\n",
    ):
        svg = re.sub(needless, "", svg)
    svg = re.sub(r'\bd="[^"]*"', lambda path: re.sub(r"\s*([MLQCz])\s*|\s+(?=\")", r"\1", path[0]), svg)
    svg = re.sub(r"(?<=<path )d=\"[^\"]*\"", lambda path: re.sub(r"\d+\.\d\d", tenths, path[0]), svg)
    # A tick's mark has its style where it is defined.
    tick = r'(<use [^>]*?) style="fill: currentColor; stroke: currentColor; stroke-width: 0.8"/>'
    svg = re.sub(tick, r"\1/>", svg)
    svg = re.sub(r'style="[^"]*"', lambda style: re.sub(r"([:;]) ", r"\1", style[0]), svg)
    before = ""
    while before != svg:  # groups of one, or of none
        before = svg
        svg = re.sub(r"<g>\n((?:<(?:use|path|image|text)\b[^>]*/>|<text\b[^>]*>[^<]*</text>)\n)</g>\n", r"\1", svg)
        svg = re.sub(r"<g(?: [^>]*)?/>\n|<g(?: [^>]*[^/>])?>\n</g>\n", "", svg)
    return svg


def short(number: re.Match[str]) -> str:
    """Return a coordinate in hundredths of a point."""
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def tenths(number: re.Match[str]) -> str:
    """Return a coordinate in tenths of a point."""
    return f"{float(number[0]):.1f}".removesuffix(".0")


def attribute(text: str) -> str:
    """Return text as the value of an attribute."""
    for sign, name in (("&", "amp"), ("<", "lt"), (">", "gt"), ('"', "quot")):
        text = text.replace(sign, f"&{name};")
    return text
