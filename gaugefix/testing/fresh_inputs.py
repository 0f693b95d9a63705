"""fresh_inputs: other inputs of the same kind as an example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def fresh_inputs(args: Sequence[Any], seed: int = 0, batch: int | None = None, spread: float = 1.0) -> tuple[Any, ...]:
    """Draw inputs like ``args``: normal floats, whole numbers within the example's range, rows of a boolean mask.

    Args:
        args: example inputs; what is no tensor, or has no axes, is kept.
        seed: of the generator.
        batch: size of the first axis; by default that of the example.
        spread: standard deviation of floats.

    Returns:
        Tensors in the dtypes and shapes of the example.
    """
    generator = torch.Generator().manual_seed(seed)
    return tuple(_like(a, generator, batch, spread) for a in args)


def fresh_keywords(kwargs: Mapping[str, Any], seed: int = 0, batch: int | None = None) -> dict[str, Any]:
    """Draw keyword inputs like ``kwargs``, as :func:`fresh_inputs` does.

    A mask (any name that contains "mask") takes rows of the example: drawn entry by entry it could leave a position
    that attends to nothing.

    Args:
        kwargs: example keyword inputs.
        seed: of the generator.
        batch: size of the first axis; by default that of the example.
    """
    generator = torch.Generator().manual_seed(seed)
    return {name: _like(value, generator, batch, mask="mask" in name) for name, value in kwargs.items()}


def as_double(item: Any) -> Any:
    """Return floating-point tensors in float64, anything else as it is."""
    return item.double() if isinstance(item, Tensor) and item.is_floating_point() else item


def _like(a: Any, generator: torch.Generator, batch: int | None, spread: float = 1.0, mask: bool = False) -> Any:
    if not isinstance(a, Tensor) or a.ndim == 0:
        return a
    if mask or a.dtype == torch.bool:
        rows = torch.randint(a.shape[0], (batch or a.shape[0],), generator=generator)
        return a[rows.to(a.device)]
    shape = (batch, *a.shape[1:]) if batch is not None else tuple(a.shape)
    if a.is_floating_point():
        return (spread * torch.randn(shape, generator=generator, dtype=torch.float64)).to(a)
    low, high = int(a.min()), int(a.max())
    return torch.randint(low, high + 1, shape, generator=generator, dtype=torch.int64).to(a)
