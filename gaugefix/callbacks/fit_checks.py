"""What a fit must offer so that parameters can be moved in place; refused before training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from gaugefix.callbacks.lightning_callback import Trainer
from gaugefix.errors import CheckpointError, SettingError
from gaugefix.sharding import is_dtensor, place_of

# strategy class (matched by name along its bases, in either Lightning package) -> why it cannot work
_REFUSED = {
    "FSDPStrategy": "it flattens parameters into shards",
    "XLAFSDPStrategy": "it flattens parameters into shards",
    "DeepSpeedStrategy": "it keeps parameters and optimizer states in partitions of its own",
}
_SHARDING = "ModelParallelStrategy"
_MEND = "Train with strategy='ddp' or on one device, or leave the gaugefix callbacks out."
_SHARDED = (
    "GaugeProjection and OrbitDrift with slice 'minimal_norm' take shards, and with 'unit_norm'; so do NoetherCharges "
    "and most terms of GaugeRegularizer."
)


def check_strategy(trainer: Trainer, takes_shards: bool = False, owner: str = "This callback") -> None:
    """Raise :class:`SettingError` for a strategy under which parameters cannot be moved.

    Args:
        trainer: whose strategy it is.
        takes_shards: whether the callback works on parameters that ``fully_shard`` has sharded.
        owner: class of the callback.
    """
    for base in type(trainer.strategy).__mro__:
        if base.__name__ in _REFUSED:
            raise SettingError(
                f"Expected a strategy with whole parameters, got {base.__name__}: {_REFUSED[base.__name__]}. {_MEND}"
            )
        if base.__name__ == _SHARDING and not takes_shards:
            raise SettingError(
                f"Expected a strategy with whole parameters, got {_SHARDING}: {owner} as it is set does not work on "
                f"shards. {_SHARDED} {_MEND}"
            )
        if base.__name__ == _SHARDING and _tensor_parallel(trainer.strategy) > 1:
            raise SettingError(
                f"Expected tensor_parallel_size=1 for {_SHARDING}, got {_tensor_parallel(trainer.strategy)}: only "
                f"parameters that are sharded by rows can be moved. {_MEND}"
            )


def check_callbacks(trainer: Trainer, owner: str = "This callback") -> None:
    """Raise :class:`SettingError` for a callback beside which parameters cannot be moved.

    Args:
        trainer: whose callbacks they are.
        owner: class of our callback.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    for base in (base for callback in callbacks for base in type(callback).__mro__):
        if base.__name__ == "ModelPruning":
            raise SettingError(
                f"Expected parameters that stay the same objects for {owner}, got {base.__name__}: it exchanges them "
                "for masked ones in mid-training. Prune in a run of its own, or leave the gaugefix callbacks out."
            )


def _tensor_parallel(strategy: Any) -> int:
    size = getattr(strategy, "_tensor_parallel_size", 1)  # "auto" until the processes are known
    return size if isinstance(size, int) else 1


def check_parameters(module: nn.Module, takes_shards: bool = False, owner: str = "This callback") -> None:
    """Raise :class:`SettingError` for parameters that are sharded otherwise than the callback can take.

    Args:
        module: the LightningModule.
        takes_shards: whether it takes parameters that are sharded by rows over one mesh dimension.
        owner: class of the callback.
    """
    for name, parameter in module.named_parameters():
        if is_dtensor(parameter) and not takes_shards:
            raise SettingError(
                f"Expected a plain tensor for '{name}', got a DTensor ({_SHARDING} or fully_shard): {owner} as it is "
                f"set does not work on shards. {_SHARDED} {_MEND}"
            )
        place_of(name, parameter)


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
