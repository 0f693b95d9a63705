"""Layers that sample a field at one point of each interval, and what this breaks."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.func import vmap

from gaugefix.errors import FieldError, did_you_mean
from gaugefix.ode.lattice import Lattice
from gaugefix.ode.linear_field import LinearField

Rule = Literal["euler", "midpoint"]


def sample(field: LinearField, times: Tensor, rule: Rule = "euler") -> Lattice:
    """Return layers from the value of a linear field at one point of each interval.

    * ``"euler"``: 1 + h A(t_l), a residual network without activations;
    * ``"midpoint"``: exp(h A(t_l + h/2)), the usual link of a lattice gauge theory.

    Gauge transformations do not commute with this. The sampled layers of the transformed field differ from the
    transformed layers by O(h²) each, O(h³) at midpoints; those of :func:`integrate` do not.

    Args:
        field: A(t) = [[W, b], [0, 0]].
        times: t_0 < … < t_L, shape (layers + 1,).
        rule: which point, and how.

    Returns:
        The lattice, links of shape (layers, n + 1, n + 1).

    Raises:
        FieldError: an unknown rule.

    Example:
        >>> sample(LinearField(lambda t: torch.ones(1, 1)), torch.tensor([0.0, 0.5])).weights
        tensor([[[1.5000]]])
    """
    h = times.diff()[:, None, None]
    if rule == "euler":
        a = vmap(field.connection)(times[:-1])
        return Lattice(torch.eye(a.shape[-1]).to(a) + h * a, times)
    if rule == "midpoint":
        links = torch.linalg.matrix_exp(h * vmap(field.connection)((times[:-1] + times[1:]) / 2))
        return Lattice(links, times)
    raise FieldError(f"Expected a rule for sample, got {rule!r}. {did_you_mean(rule, ('euler', 'midpoint'))}")
