"""double_precision: a float64 model stays in float64 where its code asks for less."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gaugefix.testing.full_precision import full_precision

_WIDER = {
    torch.float32: torch.float64,
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.complex64: torch.complex128,
    torch.complex32: torch.complex128,
}
_CASTS = (Tensor.float, Tensor.half, Tensor.bfloat16)
_READ_BITS = (Tensor.view, torch.frombuffer)
"""What a type means to these is how memory is read."""
_GROUPED = tuple(
    getattr(home, name)
    for home, name in ((torch, "_grouped_mm"), (torch.nn.functional, "grouped_mm"))
    if hasattr(home, name)
)


@contextmanager
def double_precision(device_type: str) -> Iterator[None]:
    """Compute in float64 what a float64 model would round to float32 on its way, for a while.

    Many models compute norms, softmaxes and rotary angles in float32 whatever their own type is. That is a matter of
    rounding, but it hides everything below 10⁻⁷. Inside this context every cast and every new tensor that asks for
    float32, float16 or bfloat16 (complex64) gets float64 (complex128), the default type is float64, and autocast is
    off. Integers, masks and limits of a type (``torch.finfo``) are as before.

    Args:
        device_type: ``"cpu"``, ``"cuda"``, …: where autocast is switched off.

    Example:
        >>> x = torch.ones(3, dtype=torch.float64) / 3
        >>> with double_precision("cpu"):
        ...     torch.equal(x.float().to(torch.float64), x)
        True
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with full_precision(device_type), _Wider():
            yield
    finally:
        torch.set_default_dtype(before)


class _Wider(TorchFunctionMode):
    """Replace the types that calls ask for."""

    def __torch_function__(
        self, func: Any, types: Iterable[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _CASTS:
            return Tensor.double(*args, **kwargs)
        if func in _READ_BITS:
            return func(*args, **kwargs)
        if func in _GROUPED and args[0].dtype == torch.float64 and args[1].ndim == 3 and kwargs.get("bias") is None:
            return _grouped_mm(args[0], args[1], kwargs["offs"])
        return func(*map(_wider, args), **{key: _wider(value) for key, value in kwargs.items()})


def _grouped_mm(x: Tensor, weight: Tensor, offs: Tensor) -> Tensor:
    """The rows of each group times the matrix of the group: PyTorch has it for smaller types only.

    Args:
        x: (rows, in), sorted by group.
        weight: (groups, in, out).
        offs: where each group ends.
    """
    y = x.new_zeros(len(x), weight.shape[-1])
    start = 0
    for matrix, end in zip(weight, offs.tolist(), strict=True):
        y[start:end] = x[start:end] @ matrix
        start = end
    return y


def _wider(item: Any) -> Any:
    return _WIDER.get(item, item) if isinstance(item, torch.dtype) else item
