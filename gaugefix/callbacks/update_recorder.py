"""UpdateRecorder: what one optimizer step does to the parameters, before anything else moves them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle


class UpdateRecorder:
    """Keep the parameters before a step and what the step adds to them, by torch's own step hooks.

    A projection or another callback that moves parameters behind the step is not seen. Of several optimizers the steps
    within one batch add up; where one steps several times in a batch, its first step counts. Between steps that are
    asked for, nothing is copied.

    Args:
        due: whether the step that is about to be made should be kept.
        tensors: parameters and buffers by name, each once; None as long as they are not known.
    """

    def __init__(self, due: Callable[[], bool], tensors: Callable[[], Mapping[str, Tensor] | None]) -> None:
        self._due = due
        self._tensors = tensors
        self._handles: list[RemovableHandle] = []
        self._stepping: set[int] = set()
        self.clear()

    def clear(self) -> None:
        """Forget what was kept."""
        self.before: dict[str, Tensor] = {}
        self.update: dict[str, Tensor] = {}
        self._seen: set[int] = set()

    def attach(self, optimizers: Iterable[Optimizer]) -> None:
        """Start listening."""
        self.detach()
        for key, optimizer in enumerate(optimizers):
            self._handles.append(optimizer.register_step_pre_hook(partial(self._open, key)))
            self._handles.append(optimizer.register_step_post_hook(partial(self._close, key)))

    def detach(self) -> None:
        """Stop listening."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.clear()

    @torch.no_grad()
    def _open(self, key: int, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if key in self._seen or not (self.before or self._due()):
            return
        tensors = self._tensors()
        if tensors is None:
            return
        self._seen.add(key)
        self._stepping.add(key)
        if not self.before:
            self.before = {name: tensor.detach().clone() for name, tensor in tensors.items()}

    @torch.no_grad()
    def _close(self, key: int, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if key not in self._stepping:
            return
        self._stepping.discard(key)
        tensors = self._tensors()
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, tensor in (tensors or {}).items():
            if id(tensor) in owned:
                self.update[name] = tensor.detach().double() - self.before[name].double()
