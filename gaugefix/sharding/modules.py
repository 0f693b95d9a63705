"""Modules under ``fully_shard``, which exchange their parameters for whole ones while they run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import distributed

from gaugefix.sharding.place import is_dtensor

if TYPE_CHECKING:
    from torch import nn


def is_sharded(module: nn.Module) -> bool:
    """Whether any parameter is a DTensor, or would be if its module were not just running."""
    return bool(_units(module)) or any(map(is_dtensor, module.parameters()))


def reshard_(module: nn.Module) -> None:
    """Make sure that the parameters are those that the optimizer knows.

    After a forward without backward, such as that of a validation batch, the outermost unit keeps whole parameters;
    what is written to them is lost.
    """
    for unit in _units(module):
        unit.reshard()


@contextmanager
def apart(root: nn.Module, module: nn.Module) -> Iterator[None]:
    """Let ``module`` run by itself: what units of ``root`` around it shard is gathered meanwhile.

    Afterwards everything is sharded again.
    """
    units = _units(root)
    if not units:
        yield
        return
    inside = {id(m) for m in module.modules()}
    # Units that hold the module run no hook of theirs when it is called by itself.
    around = [unit for unit in units if id(unit) not in inside and any(m is module for m in unit.modules())]
    try:
        for unit in around:
            unit.unshard()
        yield
    finally:
        reshard_(root)


def _units(module: nn.Module) -> list[Any]:
    """Modules that ``fully_shard`` was applied to."""
    fsdp: Any = sys.modules.get("torch.distributed.fsdp")  # nothing is sharded if nobody has imported it
    kind = getattr(fsdp, "FSDPModule", None)
    if kind is None or not distributed.is_initialized():
        return []
    return [m for m in module.modules() if isinstance(m, kind)]
