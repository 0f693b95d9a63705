"""Running averages of many tensors in one flat buffer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


class Averages:
    """Averages of tensors in one flat buffer, so that one call updates them all; its last entries are averages of 1.

    Args:
        kind: what is averaged.
        shapes: of the tensors, by key.
        like: a tensor of the device and dtype of the buffer.
    """

    def __init__(self, kind: str, shapes: Mapping[str, tuple[int, ...]], like: Tensor) -> None:
        sizes = [math.prod(shape) for shape in shapes.values()]
        self.kind = kind
        self.keys = tuple(shapes)
        self.buffer = like.new_zeros(sum(sizes) + len(sizes))
        self.ones = like.new_ones(len(sizes))
        *pieces, self.tail = torch.split(self.buffer, [*sizes, len(sizes)])
        self.values = {key: piece.view(shape) for (key, shape), piece in zip(shapes.items(), pieces, strict=True)}
        self.weights = dict(zip(shapes, self.tail.unbind(), strict=True))

    def fits(self, shapes: Mapping[str, tuple[int, ...]], like: Tensor) -> bool:
        """Whether these are the averages of just these tensors."""
        here = self.buffer
        same = self.keys == tuple(shapes) and len(self.values) == len(self.keys)
        return same and here.device == like.device and here.dtype == like.dtype

    def gather(self, parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """New values in one buffer, with the ones at its end; and a view without them."""
        flat = torch.cat([*(part.reshape(-1) for part in parts), self.ones])
        return flat, flat[: -len(self.keys)]

    def add_(self, entries: Tensor, flat: Tensor, weight: Tensor | float) -> None:
        """Go the part ``weight`` of the way to new values; with a tensor of zero, none whatever they are."""
        if isinstance(weight, float):
            self.buffer.lerp_(flat, weight)
        else:
            entries.nan_to_num_(0.0, 0.0, 0.0)
            self.buffer.lerp_(flat, weight.to(self.buffer.dtype))

    def replace_(self, key: str, value: Tensor | None) -> None:
        """Put in a value in a new gauge; ``None`` where nothing is known there."""
        if value is None:
            self.values[key].zero_()
            self.weights[key].zero_()
        else:
            self.values[key].copy_(value)
