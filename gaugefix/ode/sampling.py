"""Layers sampled at one point of each interval: Euler's method, and what it breaks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import vmap

from gaugefix.ode.lattice import Lattice
from gaugefix.ode.linear_field import LinearField


def sample(field: LinearField, times: Tensor, at: float = 0.0) -> Lattice:
    """Return the layers 1 + h A(t_l + at·h) of a linear field: a residual network, without activations.

    Gauge transformations do not commute with this. Sampled layers of the transformed field differ from the transformed
    layers by O(h²) each, O(h³) at midpoints; :func:`integrate` has no such error.

    Args:
        field: A(t) = [[W, b], [0, 0]].
        times: t_0 < … < t_L, shape (layers + 1,).
        at: where in each interval, from 0 (its start) to 1.

    Returns:
        The lattice, links of shape (layers, n + 1, n + 1).

    Example:
        >>> sample(LinearField(lambda t: torch.ones(1, 1)), torch.tensor([0.0, 0.5])).weights
        tensor([[[1.5000]]])
    """
    h = times.diff()
    a = vmap(field.connection)(times[:-1] + at * h)
    return Lattice(torch.eye(a.shape[-1]).to(a) + h[:, None, None] * a, times)
