"""structure_of: a module as it was before it was sharded, without the values of its parameters."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_MARKS = ("_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called")


def structure_of(module: nn.Module) -> nn.Module:
    """Return a copy with parameters on the CPU that have the whole shapes and no values, for tracing.

    No memory is spent on parameters: it is reserved, and never written to or read. Buffers keep their values. What
    ``fully_shard`` adds (its class and hooks, and with them all other hooks) is left out.
    """
    from torch.distributed.device_mesh import DeviceMesh

    memo: dict[int, Any] = {}
    shells: list[tuple[nn.Module, nn.Module]] = []
    for inner in module.modules():
        shell: nn.Module = object.__new__(_original_class(inner))
        memo[id(inner)] = shell
        shells.append((inner, shell))
        for value in inner.__dict__.values():
            if isinstance(value, DeviceMesh):  # holds process groups, which cannot be copied
                memo[id(value)] = value
        for parameter in inner._parameters.values():
            if parameter is not None and id(parameter) not in memo:
                values = torch.empty(tuple(parameter.shape), dtype=parameter.dtype)
                memo[id(parameter)] = nn.Parameter(values, requires_grad=parameter.requires_grad)
        for buffer in inner._buffers.values():
            if buffer is not None and id(buffer) not in memo:
                memo[id(buffer)] = buffer.detach().to("cpu", copy=True)
    for inner, shell in shells:
        state = {key: value for key, value in inner.__dict__.items() if not key.startswith("__composable_api")}
        state |= {key: type(state[key])() for key in (*_HOOKS, *_MARKS) if key in state}
        for key in ("_trainer", "_fabric"):  # of a LightningModule
            if key in state:
                state[key] = None
        shell.__dict__.update(copy.deepcopy(state, memo))
    return shells[0][1]  # modules() begins with the module itself


def _original_class(module: nn.Module) -> type:
    """The class that ``fully_shard`` has put a subclass of its own in front of."""
    return next(c for c in type(module).__mro__ if not any(b.__name__ == "FSDPModule" for b in c.__mro__))
