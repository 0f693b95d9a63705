"""Strategies that keep parameters in ways of their own are refused, with Lightning's own objects."""

import pytest
import pytorch_lightning
import torch
from lightning.pytorch import strategies
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta

from gaugefix import GaugeProjection, GaugeRegularizer, NoetherCharges, OrbitDrift, VerticalFraction
from gaugefix.errors import SettingError
from gaugefix.sharding import place_of
from tests.callbacks.small_fits import Announced, mlp, trainer

FSDP = (strategies.FSDPStrategy, pytorch_lightning.strategies.FSDPStrategy)
DEEPSPEED = (strategies.DeepSpeedStrategy, pytorch_lightning.strategies.DeepSpeedStrategy)


@pytest.mark.parametrize("kind", [GaugeProjection, GaugeRegularizer, NoetherCharges, OrbitDrift, VerticalFraction])
@pytest.mark.parametrize("strategy", [*FSDP, *DEEPSPEED], ids=lambda s: f"{s.__name__} of {s.__module__.split('.')[0]}")
def test_a_real_strategy(kind, strategy):
    # FSDP needs a GPU to start, and DeepSpeed its package to be made at all; the check needs neither.
    real = strategy() if strategy in FSDP else strategy.__new__(strategy)
    given = trainer(max_steps=1)
    given._accelerator_connector.strategy = real
    assert given.strategy is real
    with pytest.raises(SettingError, match=f"whole parameters, got {strategy.__name__}: .* strategy='ddp'"):
        kind().setup(given, Announced(mlp()), "fit")


def test_shards_that_are_kept_on_the_cpu():
    """As with CPUOffloadPolicy on a GPU: the shard lies elsewhere than its mesh."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh, here = DeviceMesh("cuda", torch.arange(1), _init_backend=False), torch.ones(4, 2)
        spec = DTensorSpec(mesh, (Shard(0),), TensorMeta(here.shape, here.stride(), here.dtype))
        with pytest.raises(SettingError, match=r"shard of 'w' on cuda, .* got cpu\. Leave CPUOffloadPolicy out"):
            place_of("w", DTensor(here, spec, requires_grad=False))
    finally:
        distributed.destroy_process_group()
