"""Shards: named tensors of which this process holds some rows, read as if it held them all."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed

from gaugefix.errors import SettingError
from gaugefix.sharding.place import is_dtensor, place_of, rows_here

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_SHARE, _FLOOR = 4, 2**26
"""A fourth of all bytes may be held gathered at once; 64 MB of a model so small that this does not matter."""


class Shards(MutableMapping[str, Tensor]):
    """Named tensors; ``shards[name]`` gathers one of them, ``shards[name] = whole`` keeps the rows here.

    Reading is a collective: all processes must read the same names in the same order, which they do if they run the
    same code on the same values. The last tensors read are kept, up to a fourth of all bytes (or 64 MB), so that no
    process ever holds a large model as a whole. Copies and subsets share that limit.

    Args:
        tensors: plain tensors (the same on every process, or buffers of this process) and DTensors, by name.

    Attributes:
        local: the rows here, by name; of a plain tensor all.
        places: where they lie; None for a plain tensor.
        mesh: the processes.
        trained: names of the tensors that require a gradient, tied ones once.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.places = {name: place_of(name, tensor) for name, tensor in tensors.items()}
        meshes = {place.mesh for place in self.places.values() if place is not None}
        if len(meshes) != 1:
            raise SettingError(
                f"Expected all parameters on one device mesh, got {len(meshes)}. Shard every part of the model over "
                "the same mesh."
            )
        self.mesh: DeviceMesh = meshes.pop()
        self.local = {name: rows_here(tensor).detach() for name, tensor in tensors.items()}
        first: dict[int, str] = {}
        for name, tensor in tensors.items():
            if tensor.requires_grad:
                first.setdefault(id(tensor), name)
        self.trained = tuple(first.values())
        self._recent = _Recent(max(sum(map(_bytes, tensors.values())) // _SHARE, _FLOOR))

    def __getitem__(self, name: str) -> Tensor:
        place, here = self.places[name], self.local[name]
        if place is None:
            return here
        return self._recent.get((id(here), name), here, lambda: place.gather(here))

    def __setitem__(self, name: str, whole: Tensor) -> None:
        place = self.places[name]
        self.local[name] = here = whole if place is None else place.cut(whole).clone()
        if place is not None:
            self._recent.keep((id(here), name), here, whole)

    def __delitem__(self, name: str) -> None:
        del self.local[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.local)

    def __len__(self) -> int:
        return len(self.local)

    def __contains__(self, name: object) -> bool:
        return name in self.local

    def mapped(self, change: Callable[[Tensor], Tensor], names: Iterable[str]) -> Shards:
        """Some of the tensors, changed entry by entry; nothing is gathered."""
        other = object.__new__(Shards)
        other.places, other.mesh, other.trained, other._recent = self.places, self.mesh, self.trained, self._recent
        other.local = {name: change(self.local[name]) for name in names}
        return other

    @torch.no_grad()
    def renewed(self, tensors: Mapping[str, Tensor]) -> Shards:
        """The same tensors with the values that they have by now; nothing that was gathered before is kept.

        Where each lies is not looked up again, so that this may be done at every optimizer step.
        """
        other = self.mapped(lambda t: t, ())
        other.local = {name: rows_here(tensor).detach() for name, tensor in tensors.items()}
        other._recent = _Recent(self._recent.capacity)
        return other

    def with_rows(self, rows: Mapping[str, Tensor]) -> Shards:
        """The same tensors, some of them with other rows here."""
        other = self.mapped(lambda t: t, self)
        other.local |= dict(rows)
        return other

    def scale(self, name: str, factor: Tensor, offset: float = 0.0) -> None:
        """Exchange P for (P + offset)·factor − offset; the factor broadcasts to the whole of P. Nothing is gathered."""
        here, place = self.local[name], self.places[name]
        factor = factor.to(here.device, here.dtype)
        factor = factor if place is None else place.cut(factor)
        self.local[name] = (here + offset) * factor - offset if offset else here * factor

    @property
    def leads(self) -> bool:
        """Whether this is the process whose word counts where all have one."""
        return self.mesh.get_local_rank() == 0

    def sum_(self, values: Tensor) -> Tensor:
        """Add the ``values`` of all processes up, in place."""
        distributed.all_reduce(values, group=self.mesh.get_group())
        return values

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Sum of what the rows here add, by tensor, over tensors and processes; float64, of shape ().

        What all processes have as a whole counts once.
        """
        counted = [p for name, p in parts.items() if self.leads or self.places[name] is not None]
        zero = torch.zeros((), dtype=torch.float64, device=self.mesh.device_type)
        return self.sum_(zero + sum(p.detach().to(zero) for p in counted))

    def agreed(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Return the values of the leading process, on every process."""
        if not values:
            return []
        flat = torch.cat([v.detach().to(self.mesh.device_type, torch.float64).reshape(-1) for v in values])
        group = self.mesh.get_group()
        distributed.broadcast(flat, distributed.get_global_rank(group, 0), group=group)
        parts = torch.split(flat, [v.numel() for v in values])
        return [part.view(v.shape).to(v) for part, v in zip(parts, values, strict=True)]


class _Recent:
    """The tensors that were gathered last, as many as fit into ``capacity`` bytes."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._size = 0
        # The rows themselves are kept beside the whole, so that no other tensor takes over their id.
        self._kept: OrderedDict[tuple[int, str], tuple[Tensor, Tensor]] = OrderedDict()

    def get(self, key: tuple[int, str], rows: Tensor, gather: Callable[[], Tensor]) -> Tensor:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][1]
        whole = gather()
        self.keep(key, rows, whole)
        return whole

    def keep(self, key: tuple[int, str], rows: Tensor, whole: Tensor) -> None:
        """Remember a whole tensor, and forget others for it."""
        new = _bytes(whole)
        while self._kept and self._size + new > self.capacity:
            self._size -= _bytes(self._kept.popitem(last=False)[1][1])
        self._kept[key] = (rows, whole)
        self._size += new


def shards_of(tensors: dict[str, Tensor]) -> MutableMapping[str, Tensor]:
    """``tensors`` as they are if all are plain; else a view that gathers what is read."""
    return Shards(tensors) if any(map(is_dtensor, tensors.values())) else tensors


def subset(tensors: Mapping[str, Tensor], names: Iterable[str]) -> MutableMapping[str, Tensor]:
    """Some of the tensors."""
    return tensors.mapped(lambda t: t, names) if isinstance(tensors, Shards) else {n: tensors[n] for n in names}


def copied(tensors: Mapping[str, Tensor]) -> MutableMapping[str, Tensor]:
    """A mapping of its own, with the same tensors."""
    return subset(tensors, tensors) if isinstance(tensors, Shards) else dict(tensors)


def rows_of(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """What this process holds of each; plain tensors as they are."""
    return tensors.local if isinstance(tensors, Shards) else tensors


def widened(tensors: Mapping[str, Tensor], names: Iterable[str]) -> MutableMapping[str, Tensor]:
    """Some of the tensors in float64."""
    if isinstance(tensors, Shards):
        return tensors.mapped(lambda t: t.detach().double(), names)
    return {name: tensors[name].detach().double() for name in names}


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
