"""declare: state a symmetry by hand, where discovery cannot see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from gaugefix.errors import SymmetryError, did_you_mean
from gaugefix.groups import DiagonalGroup, Group, MatrixGroup
from gaugefix.symmetry import Exactness, GaugeGroup, Leg, LinearSymmetry, named_tensors

if TYPE_CHECKING:
    from torch import nn


def declare(
    model: nn.Module,
    group: Group,
    vectors: Mapping[str, int],
    covectors: Mapping[str, int],
    *,
    name: str | None = None,
    gauge: GaugeGroup | None = None,
) -> GaugeGroup:
    """Return a gauge group with a symmetry that you state: ``group`` acts on whole axes of parameters.

    Nothing is taken on trust: pass the result to :func:`gaugefix.verify` before you train with it.

    Args:
        model: the model.
        group: what acts; its coordinates must equal the size of every axis, or divide it (then every coordinate acts
            on a run of neighbouring entries, as after flattening).
        vectors: parameter name → axis that transforms by g.
        covectors: parameter name → axis that transforms by g⁻ᵀ.
        name: of the symmetry; made from the first vector by default.
        gauge: a group to extend; a new one by default.

    Raises:
        SymmetryError: if a parameter or axis does not exist, or a size does not fit.

    Example:
        >>> import torch, gaugefix
        >>> from gaugefix.groups import PositiveScaling
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> gauge = gaugefix.declare(net, PositiveScaling(8), {"0.weight": 0, "0.bias": 0}, {"2.weight": 1})
        >>> gaugefix.verify(net, gauge, (torch.randn(3, 4),)).error < 1e-12
        True
    """
    tensors = named_tensors(model)
    legs = [_leg(tensors, group, parameter, axis, 1) for parameter, axis in vectors.items()]
    legs += [_leg(tensors, group, parameter, axis, -1) for parameter, axis in covectors.items()]
    if not legs:
        raise SymmetryError("Expected at least one parameter in vectors or covectors, got none. Name what moves.")
    symmetry = LinearSymmetry(name or f"{legs[0].parameter}:declared", Exactness.EXACT, acting=group, legs=tuple(legs))
    shapes = {leg.parameter: tuple(tensors[leg.parameter].shape) for leg in legs}
    return (gauge or GaugeGroup((), {})).with_symmetries((symmetry,), shapes)


def _leg(tensors: Mapping[str, Tensor], group: Group, parameter: str, axis: int, power: int) -> Leg:
    if parameter not in tensors:
        raise SymmetryError(
            f"Expected the name of a parameter of the model, got '{parameter}'. {did_you_mean(parameter, tensors)}"
        )
    shape = tuple(tensors[parameter].shape)
    if not -len(shape) <= axis < len(shape):
        raise SymmetryError(f"Expected an axis of '{parameter}' of shape {shape}, got {axis}. Give one of its axes.")
    axis %= len(shape)
    n = group.coordinates
    if shape[axis] % n or (shape[axis] != n and not isinstance(group, (DiagonalGroup, MatrixGroup))):
        raise SymmetryError(
            f"Expected a multiple of {n} ({group.symbol}) for axis {axis} of '{parameter}', got {shape[axis]}. "
            "Give a group of the right size."
        )
    layout = [1] * len(shape)
    layout[axis] = shape[axis]
    index = np.repeat(np.arange(n), shape[axis] // n).reshape(layout)
    return Leg(parameter, index, power, axis)
