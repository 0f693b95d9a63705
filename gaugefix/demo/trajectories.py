"""The picture of a neural ODE: how held-out inputs flow, seen along two principal axes."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor

from gaugefix.demo.extras import require
from gaugefix.demo.ode_net import OdeNet
from gaugefix.demo.solver_error import flow_through

COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f", "#8c6d31", "#5254a3",
)  # fmt: skip
"""Okabe and Ito's palette, and three more for ten classes."""
_FINE = 81


@torch.no_grad()
def draw_trajectories(net: OdeNet, u: Tensor, labels: Tensor | None, picture: Path, title: str) -> Path:
    """Draw the exact paths as lines and the states after each step as dots; return the path of the picture.

    Args:
        net: left as it is.
        u: inputs, (batch, inputs); some dozens.
        labels: class of each, (batch,), for the colour; None for one colour.
        picture: the PNG file to write.
        title: one line above the panel.
    """
    require("matplotlib", "the picture of the trajectories")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    exact = copy.deepcopy(net).cpu().double()
    x = exact.encoder(u.cpu().double())
    lines = flow_through(exact, x, torch.linspace(0, 1, _FINE, dtype=torch.float64))
    dots = exact.solve(x, exact.grid)
    axes_of, centre, share = principal_axes(lines)
    lines, dots = ((states - centre) @ axes_of for states in (lines, dots))

    figure = Figure(figsize=(6.4, 6), layout="constrained")
    FigureCanvasAgg(figure)  # draws to a file without a display, whatever backend is set
    axes = figure.subplots()
    kinds = torch.zeros(len(u), dtype=torch.long) if labels is None else labels.cpu()
    for kind in sorted(set(kinds.tolist())):
        colour, chosen = COLOURS[kind % len(COLOURS)], kinds == kind
        path, steps = lines[:, chosen], dots[:, chosen]
        axes.plot(path[..., 0].numpy(), path[..., 1].numpy(), color=colour, linewidth=0.8, alpha=0.6)
        axes.plot(steps[1:-1, :, 0].flatten().numpy(), steps[1:-1, :, 1].flatten().numpy(), ".", ms=2.5, color=colour)
        axes.plot(*steps[0].T.numpy(), "o", ms=4, mfc="white", mec=colour)
        label = None if labels is None else f"class {kind}"
        axes.plot(*steps[-1].T.numpy(), "o", ms=4.5, mfc=colour, mec=colour, label=label)
    axes.set(xlabel=f"first principal axis ({share[0]:.0%})", ylabel=f"second ({share[1]:.0%})")
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if labels is not None:
        axes.legend(frameon=False, fontsize=8, ncols=2)
    figure.suptitle(f"{title}\nopen: t = 0, full: t = 1, dots: steps of the solver", fontsize=10)
    figure.savefig(picture, dpi=130, metadata={"Software": None})
    return picture


def principal_axes(states: Tensor) -> tuple[Tensor, Tensor, list[float]]:
    """Return the two axes (n, 2) along which states (..., n) vary most, their mean (n,), and two shares of variance.

    With n = 1 the second axis is zero. Signs are fixed: the largest entry of each axis is positive.
    """
    points = states.flatten(0, -2)
    centre = points.mean(0)
    _, sizes, rows = torch.linalg.svd(points - centre, full_matrices=False)
    axes = torch.zeros(points.shape[1], 2).to(points)
    found = rows[:2].T
    largest = found.gather(0, found.abs().argmax(0, keepdim=True))
    axes[:, : found.shape[1]] = found * largest.sign()
    shares = (sizes.square() / sizes.square().sum())[:2].tolist()
    return axes, centre, [*shares, 0.0][:2]
