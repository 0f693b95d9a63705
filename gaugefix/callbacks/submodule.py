"""Submodules by name, seen through the wrappers of ``torch.compile``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from gaugefix.errors import SettingError, did_you_mean


def find_module(root: nn.Module, path: str | None) -> nn.Module:
    """Return the submodule at ``path`` (``root`` itself for an empty one), without the wrapper of ``torch.compile``.

    Raises:
        SettingError: if there is none; the message has the nearest name.
    """
    if not path:
        return unwrapped(root)
    names = {_plain(name): module for name, module in root.named_modules() if name}
    if _plain(path) not in names:
        raise SettingError(
            f"Expected the name of a submodule of {type(root).__name__} for module, got '{path}'. "
            f"{did_you_mean(path, names)}"
        )
    return unwrapped(names[_plain(path)])


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside the wrapper of ``torch.compile``."""
    inner = getattr(module, "_orig_mod", None)
    return inner if isinstance(inner, nn.Module) else module


@contextmanager
def uncompiled(module: nn.Module) -> Iterator[None]:
    """Put the original in the place of every compiled submodule for a while, so that it can be traced."""
    places = [
        (owner._modules, name, child)
        for owner in module.modules()
        for name, child in owner._modules.items()
        if child is not None and unwrapped(child) is not child
    ]
    try:
        for children, name, child in places:
            children[name] = unwrapped(child)
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for children, name, child in places:
            children[name] = child


def parameter_shapes(root: nn.Module, path: str | None) -> dict[str, list[int]]:
    """Name and shape of every parameter below ``path``: what a checkpoint is recognised by."""
    return {_plain(name): list(p.shape) for name, p in find_module(root, path).named_parameters()}


def _plain(name: str) -> str:
    return name.replace("._orig_mod", "").removeprefix("_orig_mod.")
