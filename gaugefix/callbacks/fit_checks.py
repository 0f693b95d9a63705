"""What a fit must offer so that parameters can be moved in place; refused before training."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.distributed.tensor import DTensor

from gaugefix.callbacks.lightning_callback import Trainer
from gaugefix.errors import CheckpointError, SettingError

# strategy class (matched by name along its bases, in either Lightning package) -> why it cannot work
_REFUSED = {
    "FSDPStrategy": "it flattens parameters into shards",
    "XLAFSDPStrategy": "it flattens parameters into shards",
    "DeepSpeedStrategy": "it keeps parameters and optimizer states in partitions of its own",
    "ModelParallelStrategy": "its parameters are DTensors, which are not supported yet",
}
_MEND = "Train with strategy='ddp' or on one device, or leave the gaugefix callbacks out."


def check_strategy(trainer: Trainer) -> None:
    """Raise :class:`SettingError` for a strategy that does not keep whole parameters."""
    for base in type(trainer.strategy).__mro__:
        if base.__name__ in _REFUSED:
            raise SettingError(
                f"Expected a strategy with whole parameters, got {base.__name__}: {_REFUSED[base.__name__]}. {_MEND}"
            )


def check_parameters(module: nn.Module) -> None:
    """Raise :class:`SettingError` for sharded parameters."""
    for name, parameter in module.named_parameters():
        if isinstance(parameter, DTensor):
            raise SettingError(
                f"Expected a plain tensor for '{name}', got a DTensor (ModelParallelStrategy or fully_shard). {_MEND}"
            )


def check_checkpoint(saved: Mapping[str, list[int]], now: Mapping[str, list[int]], owner: str) -> None:
    """Raise :class:`CheckpointError` if ``saved`` parameters are not those of the model.

    Args:
        saved: name → shape, from the checkpoint.
        now: name → shape, of the model.
        owner: class of the callback.
    """
    for name in [*saved, *now]:
        if saved.get(name) != now.get(name):
            raise CheckpointError(
                f"Expected the checkpoint of a model with '{name}' of shape {now.get(name, 'none')} for {owner}, got "
                f"{saved.get(name, 'none')}. It belongs to another model: resume with the model that wrote it, or load "
                "its weights only."
            )
