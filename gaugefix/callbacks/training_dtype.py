"""training_dtype: new tensors get the type that they have in the training step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gaugefix.callbacks.lightning_callback import Trainer

_TYPES = {"64-true": torch.float64, "16-true": torch.float16, "bf16-true": torch.bfloat16}


@contextmanager
def training_dtype(trainer: Trainer) -> Iterator[None]:
    """Let ``torch.zeros(3)`` in a forward give what it gives in training, for a while.

    Under these precisions Lightning changes torch's default type around each step. A network that makes tensors of its
    own mixes types outside of that, which products refuse.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(_TYPES.get(str(trainer.precision), before))
    try:
        yield
    finally:
        torch.set_default_dtype(before)
