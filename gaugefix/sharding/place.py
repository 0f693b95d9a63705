"""Place: which rows of a parameter this process holds."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed

from gaugefix.errors import SettingError

if TYPE_CHECKING:  # half a second to import, which a single process need not spend
    from torch.distributed.device_mesh import DeviceMesh

_MEND = (
    "Shard with fully_shard over one mesh dimension (ModelParallelStrategy with tensor_parallel_size=1), train with "
    "strategy='ddp' or on one device, or leave the gaugefix callbacks out."
)


@dataclass(frozen=True)
class Place:
    """Rows ``start`` to ``start + rows`` of a tensor that is sharded along its first axis.

    Args:
        mesh: one-dimensional; the processes that share the tensor.
        shape: of the whole tensor.
        start: first row here.
        rows: how many; none where the tensor has fewer rows than there are processes.
    """

    mesh: DeviceMesh
    shape: tuple[int, ...]
    start: int
    rows: int

    def cut(self, whole: Tensor) -> Tensor:
        """The rows here of ``whole``, which has all rows or, as a factor that is the same for all, one."""
        return (
            whole if whole.shape[0] == 1 != self.shape[0] else whole.narrow(0, min(self.start, len(whole)), self.rows)
        )

    def gather(self, rows: Tensor) -> Tensor:
        """The whole tensor, on every process, from the rows of each; any dtype."""
        each = -(-self.shape[0] // self.mesh.size())
        filled = rows.contiguous()
        if self.rows < each:
            filled = torch.cat([filled, filled.new_zeros(each - self.rows, *self.shape[1:])])
        whole = filled.new_empty(each * self.mesh.size(), *self.shape[1:])
        distributed.all_gather(list(torch.split(whole, each)), filled, group=self.mesh.get_group())
        return whole[: self.shape[0]]


def is_dtensor(tensor: Tensor) -> bool:
    """Whether ``tensor`` is a DTensor; none is, as long as nobody has imported that class."""
    home: Any = sys.modules.get("torch.distributed.tensor")
    return home is not None and isinstance(tensor, home.DTensor)


def place_of(name: str, tensor: Tensor) -> Place | None:
    """Return where ``tensor`` lies; ``None`` if every process holds all of it.

    Raises:
        SettingError: for a DTensor that is not sharded along its first axis over one mesh dimension, or whose shard is
            on another kind of device than its mesh.
    """
    if not is_dtensor(tensor):
        return None
    from torch.distributed.tensor import DTensor, Replicate, Shard

    assert isinstance(tensor, DTensor)
    placements, mesh = tensor.placements, tensor.device_mesh
    if all(type(p) is Replicate for p in placements):
        return None
    if len(placements) != 1 or type(placements[0]) is not Shard or placements[0].dim != 0:
        raise SettingError(
            f"Expected rows on one mesh dimension, Shard(0), for '{name}', got {', '.join(map(str, placements))}. "
            f"{_MEND}"
        )
    here = tensor.to_local()
    if here.device.type != mesh.device_type:
        raise SettingError(
            f"Expected the shard of '{name}' on {mesh.device_type}, the device of its mesh, got {here.device.type}. "
            "Leave CPUOffloadPolicy out."
        )
    size = -(-tensor.shape[0] // mesh.size())
    start = min(mesh.get_local_rank() * size, tensor.shape[0])
    rows = min(size, tensor.shape[0] - start)
    if here.shape != (rows, *tensor.shape[1:]):
        raise SettingError(
            f"Expected rows {start} to {start + rows} of {tuple(tensor.shape)} for the shard of '{name}', got shape "
            f"{tuple(here.shape)}. {_MEND}"
        )
    return Place(mesh, tuple(tensor.shape), start, rows)


def rows_here(tensor: Tensor) -> Tensor:
    """Return what this process holds of ``tensor``, as a view; a plain tensor as it is."""
    if not is_dtensor(tensor):
        return tensor
    sharded: Any = tensor
    here: Tensor = sharded.to_local()
    return here


def factor_here(tensor: Tensor, factor: Tensor) -> Tensor:
    """Return the part of ``factor``, which broadcasts to the whole of ``tensor``, that belongs to the rows here."""
    place = place_of("a tensor that moves", tensor)
    return factor if place is None else place.cut(factor)
