"""What a slice is solved on: whole parameters, or shards where a model has those."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gaugefix.errors import NonFiniteError, SliceError
from gaugefix.sharding import Shards, reshard_, shards_of
from gaugefix.slices.base import Slice, require_finite
from gaugefix.symmetry import Element, GaugeGroup

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


def tensors_for(slice: Slice, gauge: GaugeGroup, model: nn.Module) -> MutableMapping[str, Tensor]:
    """Return the parameters and buffers that the group reads, as the slice can read them.

    Raises:
        SliceError: if parameters are sharded and the slice does not take that.
        SymmetryError: if the group belongs to another model.
    """
    return as_read_by(slice, tensors_of(gauge, model))


def tensors_of(gauge: GaugeGroup, model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers that the group reads, those that the optimizer knows.

    Raises:
        SymmetryError: if the group belongs to another model.
    """
    reshard_(model)
    return gauge.check(model)


def as_read_by(slice: Slice, parameters: dict[str, Tensor]) -> MutableMapping[str, Tensor]:
    """Return whole parameters, or shards where a model has those and the slice takes them.

    Raises:
        SliceError: if parameters are sharded and the slice does not take that.
    """
    tensors = shards_of(parameters)
    if isinstance(tensors, Shards) and not slice.takes_shards:
        raise SliceError(
            f"Expected whole parameters for slice '{slice.name}', got shards (fully_shard, DTensor). Take "
            "'minimal_norm' or 'unit_norm', which are solved on shards, or train with strategy='ddp' or on one device."
        )
    return tensors


def agreed(element: Element, tensors: Mapping[str, Tensor]) -> Element:
    """Return one element for all processes that share ``tensors``: that of the first."""
    if not isinstance(tensors, Shards):
        return element
    values = tensors.agreed([value for _, value in element.steps])
    return Element(tuple(zip((name for name, _ in element.steps), values, strict=True)))


def require_all_finite(tensors: Mapping[str, Tensor]) -> None:
    """As :func:`require_finite`; of shards each process looks at what it has, and all raise for what one has found."""
    if not isinstance(tensors, Shards):
        require_finite(tensors)
        return
    found = [(~torch.isfinite(rows)).sum().to(tensors.mesh.device_type) for rows in tensors.local.values()]
    for name, count in zip(tensors.local, tensors.sum_(torch.stack(found)).tolist(), strict=True):
        if count:
            raise NonFiniteError(
                f"Expected finite values for '{name}', got {count} NaN or infinite entries. Nothing was changed; "
                "restore a checkpoint from before the divergence, or lower the learning rate."
            )
