"""What the page needs for its hover read-out: where a panel's axes are, and the numbers behind its artists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gaugefix.compare.history import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass
class Probe:
    """The numbers of one axes.

    Args:
        axes: that they are drawn in.
        title: first line of the read-out, such as "drift, balanced start".
        curves: method's index → its curve, read at a step.
        marks: (method's index, x, y, text) of points and cells, in data coordinates; read at the nearest.
        grid: (steps, rows' names, values (rows, steps)) of a heatmap.
        method: index of the method that a heatmap belongs to.
    """

    axes: Axes
    title: str
    curves: dict[int, Curve] = field(default_factory=dict)
    marks: list[tuple[int, float, float, str]] = field(default_factory=list)
    grid: tuple[Sequence[int], Sequence[str], Sequence[Sequence[float]]] | None = None
    method: int | None = None

    def data(self) -> dict[str, Any]:
        """Return it as JSON holds it. The figure must have been saved, so that its layout is final."""
        figure = self.axes.figure.figure  # of a figure, or of a part of one; the root either way
        low, high = self.axes.get_xlim()
        found: dict[str, Any] = {"title": self.title, "box": box(self.axes, figure), "x": [rounded(low), rounded(high)]}
        if self.curves:
            found["curves"] = [
                [index, curve.steps.tolist(), *([rounded(v) for v in values] for values in bands(curve))]
                for index, curve in self.curves.items()
            ]
        if self.marks:
            found["marks"] = [[index, *place(self.axes, figure, x, y), text] for index, x, y, text in self.marks]
        if self.grid is not None:
            steps, names, values = self.grid
            found["grid"] = [list(steps), list(names), [[rounded(v) for v in row] for row in values]]
        if self.method is not None:
            found["method"] = self.method
        return found


def bands(curve: Curve) -> list[list[float]]:
    """Return the mean, and the ends of the band where there is more than one seed."""
    lines = [curve.mean, curve.low, curve.high] if curve.seeds > 1 else [curve.mean]
    return [line.tolist() for line in lines]


def rounded(value: float) -> float:
    """Return a number with three digits, which is what a read-out shows."""
    return float(f"{value:.3g}")


def box(axes: Axes, figure: Figure) -> list[float]:
    """Return left, top, width and height of axes in points of the SVG."""
    width, height = (72 * side for side in figure.get_size_inches())
    corners = axes.get_window_extent().transformed(figure.transFigure.inverted())
    left, bottom, right, top = corners.extents
    return [round(v, 1) for v in (left * width, (1 - top) * height, (right - left) * width, (top - bottom) * height)]


def place(axes: Axes, figure: Figure, x: float, y: float) -> list[float]:
    """Return where a point in data coordinates is, in points of the SVG."""
    width, height = (72 * side for side in figure.get_size_inches())
    across, up = figure.transFigure.inverted().transform(axes.transData.transform((x, y)))
    return [round(float(across) * width, 1), round((1 - float(up)) * height, 1)]
