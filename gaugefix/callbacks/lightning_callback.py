"""The base class of our callbacks: a Callback of ``lightning`` and of the standalone ``pytorch_lightning`` at once.

The two packages ship the same code under two names, and each Trainer and CLI asks for a Callback of its own. Importing
the one that a program does not use would cost time and reroute its log messages, so only what is imported counts.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

__all__ = ["LightningCallback", "LightningModule", "Trainer", "adopt", "callbacks_of"]

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def _imported() -> list[type]:
    """The Callback class of every package that is imported by now."""
    found = [getattr(sys.modules.get(package), "Callback", None) for package in _PACKAGES]
    return [callback for callback in found if callback is not None]


def _first() -> type:
    """The Callback class of the first package that is installed."""
    for package in _PACKAGES:
        try:
            callback: type = importlib.import_module(package).Callback
        except ModuleNotFoundError as error:
            if error.name not in ("lightning", *_PACKAGES):
                raise
        else:
            return callback
    raise ModuleNotFoundError(
        "Expected lightning or pytorch_lightning for the callbacks of gaugefix, got neither. Run: pip install lightning"
    )


# Not "if TYPE_CHECKING": jsonargparse executes what it finds there, and would import a package that nobody uses.
if not TYPE_CHECKING:
    _NAMESPACE = {"__module__": __name__, "__doc__": "A Callback of every Lightning package that is imported."}
    LightningCallback = type("LightningCallback", tuple(_imported() or [_first()]), _NAMESPACE)
    LightningModule = Trainer = Any
else:
    from lightning.pytorch import Callback as LightningCallback
    from lightning.pytorch import LightningModule, Trainer


def adopt() -> None:
    """Make our callbacks callbacks of a package that was imported after them."""
    new = [callback for callback in _imported() if not issubclass(LightningCallback, callback)]
    if new:
        LightningCallback.__bases__ = (*LightningCallback.__bases__, *new)


def callbacks_of(trainer: Trainer, kind: type[Any]) -> list[Any]:
    """Return the callbacks of one kind, in order."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, kind)]
