"""What all processes must have in common before one of them moves parameters: the gauge group, and that it can."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import distributed

from gaugefix.callbacks.gauge_source import Analysed
from gaugefix.callbacks.lightning_callback import Trainer
from gaugefix.errors import NonFiniteError, SettingError, SliceError

_WAITING, _FAILED = "none yet (the network was not called)", "an error"
_SHOWN = 3
"""Names in a message; more are counted."""
_MEND = (
    "Give all processes the same model (layers, frozen parameters, a group given by hand) and inputs of one structure: "
    "set the same example_input_array on all of them."
)
Summary = dict[str, str] | str
"""Of a group: a digest by the name of each symmetry; or why there is none."""


def check_agreement(trainer: Trainer, found: Analysed | None, failure: Exception | None, owner: str) -> None:
    """Raise on every process if one of them found another gauge group; on a single process, raise ``failure`` only.

    All processes call it at the same point, whatever happened on each of them. It takes one all-gather of 32 bytes,
    and a second one, of names, where they differ.

    Args:
        trainer: its strategy gathers.
        found: what was found here; None where it is not known yet.
        failure: what went wrong here instead.
        owner: class of the callback.

    Raises:
        SettingError: if another process found another group, found none yet, or failed.
        Exception: ``failure`` itself.
    """
    if trainer.world_size > 1 and distributed.is_available() and distributed.is_initialized():
        mine: Summary = _FAILED if failure else _WAITING if found is None else summary_of(found)
        if not _same_everywhere(trainer, mine):
            every: list[Summary] = [mine] * trainer.world_size
            distributed.all_gather_object(every, mine if failure is None else f"{_FAILED} ({failure})")
            if failure is None:
                raise SettingError(_disagreement(every, trainer.global_rank, owner))
    if failure is not None:
        raise failure


@contextmanager
def all_or_none(trainer: Trainer) -> Iterator[None]:
    """Keep all processes from moving parameters if it turns out here that one of them cannot.

    Processes have the same parameters, but running averages of their own, which may be NaN on one of them.

    Raises:
        NonFiniteError: where nothing was wrong.
    """
    try:
        yield
    except (NonFiniteError, SliceError):
        trainer.strategy.reduce_boolean_decision(False)
        raise
    if not trainer.strategy.reduce_boolean_decision(True):
        raise NonFiniteError(
            "Expected finite values on all processes, got NaN or infinity on another one, in a buffer of its own. "
            "Nothing was changed; look at the running averages there."
        )


def summary_of(found: Analysed) -> dict[str, str]:
    """Return a digest of every symmetry: its group, exactness, parameters, their shapes, and its legs."""
    gauge, inside = found.gauge, f"{found.path}." if found.path else ""
    summary = {}
    for symmetry in gauge.symmetries:
        shapes = [(name, tuple(gauge.shapes[name])) for name in symmetry.reads]
        digest = hashlib.sha256()
        _feed(digest, (symmetry, shapes))
        summary[f"{inside}{symmetry.name}"] = digest.hexdigest()
    return summary


def _feed(digest: Any, item: Any) -> None:
    """Take in what an object consists of; of what is no data, its type."""
    digest.update(f"{type(item).__name__}:".encode())
    if isinstance(item, np.ndarray):
        digest.update(f"{item.dtype}{item.shape}".encode() + np.ascontiguousarray(item).tobytes())
    elif isinstance(item, (str, bytes, int, float, np.generic, Enum, type(None))):
        digest.update(f"{item!r};".encode())
    elif isinstance(item, Mapping):
        _feed(digest, tuple(item.items()))
    elif isinstance(item, (tuple, list)):
        for member in item:
            _feed(digest, member)
    elif is_dataclass(item):
        for field in fields(item):
            if not field.name.startswith("_"):  # caches
                _feed(digest, getattr(item, field.name))


def _same_everywhere(trainer: Trainer, mine: Summary) -> bool:
    here = np.frombuffer(hashlib.sha256(repr(mine).encode()).digest(), dtype=np.int64)
    tensor = torch.from_numpy(here.copy()).to(trainer.strategy.root_device)
    return bool((trainer.strategy.all_gather(tensor) == tensor).all())


def _disagreement(every: list[Summary], rank: int, owner: str) -> str:
    """The message: how this process differs from the first one; on that, from the first that differs."""
    other = 0 if every[0] != every[rank] else next(k for k, summary in enumerate(every) if summary != every[rank])
    return (
        f"Expected the same gauge group on all processes for {owner}, got on process {rank} "
        f"{_difference(every[rank], every[other], other)}. Parameters would move apart. {_MEND}"
    )


def _difference(here: Summary, there: Summary, other: int) -> str:
    if isinstance(here, str) or isinstance(there, str):
        mine, theirs = (s if isinstance(s, str) else f"one of {len(s)} symmetries" for s in (here, there))
        return f"{mine}, on process {other} {theirs}"
    parts = (
        ("one with", [name for name in here if name not in there]),
        ("one without", [name for name in there if name not in here]),
        ("other legs of", [name for name in here if there.get(name, here[name]) != here[name]]),
    )
    found = ", ".join(f"{what} {_some(names)}" for what, names in parts if names)
    return f"{found or 'another order of symmetries'}, unlike process {other}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:_SHOWN]) + more
