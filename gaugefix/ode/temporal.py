"""Temporal gauge: all weights and biases moved to one end."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gaugefix.ode.lattice import Lattice


class GaugeFixed(NamedTuple):
    """A lattice on a slice, and the frames that brought it there, (layers + 1, n + 1, n + 1)."""

    lattice: Lattice
    frames: Tensor


def temporal_gauge(lattice: Lattice, free_end: bool = True) -> GaugeFixed:
    """Bring a lattice to temporal gauge, W̃ = 0 and b̃ = 0.

    G_{l+1} = G_l link_l⁻¹ from G_0 = 1 makes every link the unit matrix. At the end G_L = holonomy⁻¹, which what reads
    x(T) has to absorb: a decoder D becomes D G_L⁻¹ = D · holonomy. With ``free_end=False`` the end frame stays 1 and
    the last link is the holonomy itself, the others are 1.

    What is left: with the start in place, nothing. If that may move as well, one constant frame for all times.

    Args:
        lattice: links (layers, n + 1, n + 1), all invertible.
        free_end: whether the frame at the end may move.

    Returns:
        The lattice and the frames.

    Example:
        >>> lattice = Lattice.of_layers(torch.tensor([[[2.0]], [[3.0]]]))
        >>> temporal_gauge(lattice, free_end=False).lattice.weights.flatten()
        tensor([1., 6.])
    """
    frames = [torch.eye(lattice.links.shape[-1]).to(lattice.links)]
    for link in lattice.links:
        frames.append(torch.linalg.solve(link, frames[-1], left=False))
    if not free_end:
        frames[-1] = frames[0]
    stack = torch.stack(frames)
    stack = torch.cat([stack[:, :-1], frames[0][-1:].expand(len(frames), 1, -1)], 1)
    return GaugeFixed(lattice.transform(stack), stack)
