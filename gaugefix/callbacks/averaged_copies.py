"""averaged_copies: the averaged models that other callbacks keep, which must stay in the gauge of the model."""

from __future__ import annotations

from typing import Any

from torch import nn

from gaugefix.callbacks.gauge_source import Analysed
from gaugefix.callbacks.lightning_callback import Trainer
from gaugefix.callbacks.submodule import find_module
from gaugefix.errors import GaugeError

_AVERAGING = ("WeightAveraging", "StochasticWeightAveraging")
_UNKNOWN = object()


def averaged_copies(trainer: Trainer, analysed: Analysed) -> tuple[list[nn.Module], list[str]]:
    """Return what corresponds to the analysed module in every averaged copy that a callback of ``trainer`` keeps.

    Lightning's averaging callbacks, and those built like them, hold their copy as ``_average_model``: an AveragedModel
    around it, the copy itself, or None before there is one. That name is private: nothing is taken for granted.

    Returns:
        The copies, and the classes of averaging callbacks whose copy was not found.
    """
    copies: list[nn.Module] = []
    strange: list[str] = []
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        kept = getattr(callback, "_average_model", _UNKNOWN)
        if isinstance(kept, nn.Module):
            inner = getattr(kept, "module", kept)
            try:
                copy = find_module(inner if isinstance(inner, nn.Module) else kept, analysed.path)
                analysed.gauge.check(copy)
            except GaugeError:
                strange.append(type(callback).__name__)
            else:
                copies.append(copy)
        elif kept is not None and any(base.__name__ in _AVERAGING for base in type(callback).__mro__):
            strange.append(type(callback).__name__)
    return copies, strange
