"""A model with averaged copies."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gaugefix import GaugeGroup
from tests.slices.small_nets import build


def trained_copies(name: str) -> tuple[nn.Module, GaugeGroup, Tensor, nn.Module, AveragedModel]:
    """A model, a plain copy, and an exponential average, all at different points."""
    net, gauge, batch = build(name)
    plain = build(name, seed=7)[0]
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    average.update_parameters(plain)
    average.update_parameters(net)
    return net, gauge, batch, plain, average
