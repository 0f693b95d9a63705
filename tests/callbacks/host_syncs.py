"""Watch the hooks of callbacks in a Trainer: what in them would make the host wait for an accelerator."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

HOOKS = [name for name in dir(pl.Callback) if name.startswith("on_")]
READS = {  # each gives Python something that depends on the numbers in a tensor
    torch.ops.aten._local_scalar_dense,
    torch.ops.aten.item,
    torch.ops.aten.nonzero,
    torch.ops.aten.is_nonzero,
    torch.ops.aten.equal,
    torch.ops.aten.masked_select,
    torch.ops.aten.unique_dim,
    torch.ops.aten._unique2,
    torch.ops.aten.repeat_interleave,
}
INDEXED = {torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_}
"""By a mask, they count its entries."""
METHODS = {Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.cpu}
"""On the CPU these dispatch nothing."""


class Reads(TorchDispatchMode):
    """Collects operations that wait for a number, and copies to another device."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.overloadpacket in READS:
            self.found.append(str(func))
        if func.overloadpacket in INDEXED and any(t is not None and t.dtype == torch.bool for t in args[1]):
            self.found.append(f"{func} by a mask")
        if func.overloadpacket is torch.ops.aten._to_copy:
            device = kwargs.get("device")
            if device is not None and torch.device(device).type != args[0].device.type:
                self.found.append(f"{func} to {device}")
        return func(*args, **kwargs)


class Methods(TorchFunctionMode):
    """Collects methods of tensors that wait for their numbers."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in METHODS:
            self.found.append(func.__name__)
        return func(*args, **(kwargs or {}))


class Watch(pl.Callback):
    """First in the list: runs the hooks of other callbacks within a context, those of their optimizer hooks too.

    Args:
        watched: callbacks of the same Trainer.
        context: what a hook runs within, called with the number of the step (1 for the first).
    """

    def __init__(self, watched: Iterable[pl.Callback], context: Callable[[int, str], AbstractContextManager]) -> None:
        self.step = 0
        self.context = context
        self.calls: set[str] = set()
        for callback in watched:
            for hook in HOOKS:
                if getattr(type(callback), hook) is not getattr(pl.Callback, hook, None):
                    label = f"{type(callback).__name__}.{hook}"
                    setattr(callback, hook, self._within(getattr(callback, hook), label))

    def _within(self, function, label: str):
        @functools.wraps(function)
        def run(*args, **kwargs):
            if not self.step:
                return function(*args, **kwargs)  # before training
            self.calls.add(label)
            with self.context(self.step, label):
                return function(*args, **kwargs)

        return run

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if not self.step:
            for optimizer in trainer.optimizers:
                hooks = optimizer._optimizer_step_post_hooks
                for key, function in hooks.items():
                    hooks[key] = self._within(function, "optimizer hook")
        self.step = trainer.global_step + 1

    def on_train_end(self, trainer, pl_module) -> None:
        self.step = 0


class Recorded:
    """What was read, by step: a context for :class:`Watch`."""

    def __init__(self) -> None:
        self.by_step: dict[int, list[str]] = {}

    @contextmanager
    def __call__(self, step: int, label: str) -> Iterator[None]:
        found: list[str] = []
        with Reads(found), Methods(found):
            yield
        if found:
            self.by_step.setdefault(step, []).extend(f"{label}: {what}" for what in found)
