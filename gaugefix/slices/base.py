"""A gauge slice: a condition on parameters, and the group element that brings them there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from gaugefix.errors import NonFiniteError, SliceError, did_you_mean
from gaugefix.symmetry import Element, GaugeGroup

_SLICES: dict[str, type[Slice]] = {}


class Slice(ABC):
    """One gauge condition. Subclasses are registered by :func:`register_slice`."""

    name: ClassVar[str]
    takes_shards: ClassVar[bool] = False
    """Whether ``solve`` reads one tensor at a time, so that no process needs the whole model."""

    @abstractmethod
    def solve(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Element:
        """Return the element g* that brings the parameters onto the slice; nothing is changed.

        Args:
            gauge: the group; only applied symmetries are used.
            tensors: parameters and buffers by name.

        Raises:
            NonFiniteError: if a parameter holds NaN or infinity.
            SliceError: if the orbit does not meet the slice.
        """

    @abstractmethod
    def residual(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return a dimensionless scalar that vanishes exactly on the slice."""

    def measure(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> tuple[Element, Tensor]:
        """Return :meth:`solve` and :meth:`residual` together; slices that share work between them override it."""
        return self.solve(gauge, tensors), self.residual(gauge, tensors)


def register_slice(name: str) -> Callable[[type[Slice]], type[Slice]]:
    """Class decorator: make a slice available by name."""

    def add(cls: type[Slice]) -> type[Slice]:
        if name in _SLICES:
            raise SliceError(f"Expected a new name for a slice, got '{name}', which exists. Choose another name.")
        cls.name = name
        _SLICES[name] = cls
        return cls

    return add


def get_slice(slice: str | Slice) -> Slice:
    """Return a slice by name (or as it is).

    Raises:
        SliceError: if the name is unknown; the message has the nearest name and the list.
    """
    if isinstance(slice, Slice):
        return slice
    if slice not in _SLICES:
        raise SliceError(f"Expected the name of a slice, got '{slice}'. {did_you_mean(slice, _SLICES)}")
    return _SLICES[slice]()


def slice_names() -> tuple[str, ...]:
    """Names of all slices."""
    return tuple(_SLICES)


def require_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise :class:`NonFiniteError` naming the first tensor with NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            count = int((~torch.isfinite(tensor)).sum())
            raise NonFiniteError(
                f"Expected finite values for '{name}', got {count} NaN or infinite entries. Nothing was changed; "
                "restore a checkpoint from before the divergence, or lower the learning rate."
            )
