"""project_: onto a gauge slice, in place, without changing the function."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from gaugefix.slices import Slice, agreed, as_read_by, diagonal_part, dyadic, get_slice, tensors_of
from gaugefix.symmetry import Element, GaugeGroup
from gaugefix.transport import Policy, move_

if TYPE_CHECKING:
    from torch import Tensor, nn


@torch.no_grad()
def project_(
    model: nn.Module,
    gauge: GaugeGroup,
    slice: str | Slice,
    optimizers: Iterable[torch.optim.Optimizer] = (),
    dyadic: bool = False,
    *,
    averaged: Sequence[nn.Module] = (),
    unknown_optimizer: Policy = "error",
) -> Element:
    """Project ``model`` onto a gauge slice in place, with gradients, optimizer states and averaged copies.

    Args:
        model: whose parameters move.
        gauge: its group, from :func:`gaugefix.discover`.
        slice: a name (``"minimal_norm"``, ``"unit_norm"``) or a :class:`gaugefix.slices.Slice`.
        optimizers: optimizers whose state belongs to the parameters.
        dyadic: round scales to powers of two: the function then stays the same to the last bit, and the slice is
            reached up to a factor of √2 per unit. Matrix groups and shifts are left out.
        averaged: copies that move by the same element.
        unknown_optimizer: for states without a known law: ``"error"``, ``"reset"`` or ``"ignore"``.

    Returns:
        The element that acted.

    Raises:
        SliceError: if the slice is unknown or the orbit does not meet it.
        NonFiniteError: if a parameter is not finite; nothing was changed.
        TransportError: for an optimizer state without a law; nothing was changed.
        SymmetryError: if the group belongs to another model; nothing was changed.

    Example:
        >>> import torch, gaugefix
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> gauge = gaugefix.discover(net, (torch.randn(3, 4),))
        >>> element = gaugefix.project_(net, gauge, "minimal_norm")
        >>> gaugefix.drift(net, gauge, "minimal_norm").total < 1e-3
        True
    """
    target = get_slice(slice)
    tensors = tensors_of(gauge, model)
    element = _solve(tensors, gauge, target, dyadic)
    move_(tensors, gauge, element, optimizers, averaged, unknown_optimizer)
    return element


@torch.no_grad()
def solve(model: nn.Module, gauge: GaugeGroup, slice: str | Slice, dyadic_only: bool = False) -> Element:
    """Return the element that brings ``model`` onto the slice; nothing is changed."""
    return _solve(tensors_of(gauge, model), gauge, get_slice(slice), dyadic_only)


def _solve(parameters: dict[str, Tensor], gauge: GaugeGroup, slice: Slice, dyadic_only: bool) -> Element:
    tensors = as_read_by(slice, parameters)
    element = agreed(slice.solve(diagonal_part(gauge) if dyadic_only else gauge, tensors), tensors)
    return dyadic(gauge, element) if dyadic_only else element
