"""full_precision: run without the shortcuts whose rounding would hide what a probe looks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_ROUGH = ("tf32", "bf16")


@contextmanager
def full_precision(device_type: str) -> Iterator[None]:
    """Switch off autocast and TF32 (or BF16) inside float32 products and convolutions, for a while.

    TF32 rounds to 2⁻¹¹, 400 times more than the tolerance for float32, and is on by default in convolutions on GPUs.

    Args:
        device_type: ``"cpu"``, ``"cuda"``, …: where autocast is switched off.
    """
    places = _places()
    try:
        for place, name, value in places:
            setattr(place, name, "ieee" if isinstance(value, str) else False)
        if torch.amp.is_autocast_available(device_type):
            with torch.autocast(device_type, enabled=False):
                yield
        else:
            yield
    finally:
        for place, name, value in places:
            setattr(place, name, value)


def _places() -> list[tuple[Any, str, str | bool]]:
    """The switches that are set to something rough, with their values."""
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    mkldnn: Any = torch.backends.mkldnn
    if hasattr(cudnn, "conv"):  # torch 2.9 and later; reading the older switches may raise there
        every = [cuda, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]
        return [(p, "fp32_precision", p.fp32_precision) for p in every if p.fp32_precision in _ROUGH]
    return [(p, "allow_tf32", True) for p in (cuda, cudnn) if p.allow_tf32]
