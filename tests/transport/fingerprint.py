"""A hash of every bit that belongs to a model and its optimizers: the witness that nothing was changed."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn


def fingerprint(*owners: Any) -> str:
    """Parameters, buffers, gradients, optimizer states and nested data, bit by bit, with names, shapes and dtypes."""
    digest = hashlib.sha256()
    for owner in owners:
        if isinstance(owner, nn.Module):
            for name, tensor in (*owner.named_parameters(), *owner.named_buffers()):
                _add(digest, name, tensor)
                _add(digest, f"{name}.grad", tensor.grad)
        else:
            _add(digest, "state", owner.state_dict() if isinstance(owner, torch.optim.Optimizer) else owner)
    return digest.hexdigest()


def _add(digest: Any, name: str, item: Any) -> None:
    if isinstance(item, Tensor):
        tensor = item.detach()
        dense = tensor.to_dense() if tensor.layout != torch.strided else tensor
        digest.update(f"{name} {tensor.layout} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(dense.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(item, dict):
        for key, value in item.items():
            _add(digest, f"{name}.{key}", value)
    elif isinstance(item, (list, tuple)):
        for k, value in enumerate(item):
            _add(digest, f"{name}.{k}", value)
    else:
        digest.update(f"{name} {item!r}".encode())
