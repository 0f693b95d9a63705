"""Optimizers that have a state."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tests.slices.small_nets import loss

Stepped = TypeVar("Stepped", bound=torch.optim.Optimizer)


def stepped(net: nn.Module, optimizer: Stepped, batch: Tensor) -> Stepped:
    """One step, so that there is a state."""

    def closure():
        optimizer.zero_grad()
        value = loss(net, batch)
        value.backward()
        return value

    optimizer.step(closure)
    return optimizer


def states(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    """A copy of the state of every parameter, by name."""
    return {name: copy.deepcopy(dict(optimizer.state.get(p, {}))) for name, p in net.named_parameters()}
