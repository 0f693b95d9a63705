"""Small attention networks with their gauge groups, each discovered once, generic parameters in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn

import gaugefix
from gaugefix import GaugeGroup
from gaugefix.testing import randomise_
from tests.discovery.transformers_small import Decoder, GroupedQueries, RotaryDecoder, encoder
from tests.slices.small_nets import BUILDERS, build

IDS = torch.randint(0, 13, (2, 8), generator=torch.Generator().manual_seed(0))
HIDDEN = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ATTENTION: dict[str, tuple[Callable[[], nn.Module], torch.Tensor]] = {
    "like GPT-2": (Decoder, IDS),
    "like Llama": (lambda: RotaryDecoder(tied=False), IDS),
    "like Llama, tied": (lambda: RotaryDecoder(tied=True), IDS),
    "post-norm encoder": (lambda: encoder(norm_first=False), HIDDEN),
    "pre-norm encoder": (lambda: encoder(norm_first=True), HIDDEN),
    "grouped queries": (GroupedQueries, HIDDEN),
}


@cache
def _built(name: str) -> tuple[nn.Module, GaugeGroup]:
    make, batch = ATTENTION[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make().double().eval()
    return net, gaugefix.discover(net, (batch,))


def any_net(name: str, seed: int = 0) -> tuple[nn.Module, GaugeGroup, Any]:
    """A fresh net by name, of attention or not, its group and a batch; float64 and in eval mode."""
    if name in BUILDERS:
        net, gauge, batch = build(name, seed=seed)
        return net.eval(), gauge, batch
    prototype, gauge = _built(name)
    net = copy.deepcopy(prototype)
    randomise_(net, seed)
    return net, gauge, ATTENTION[name][1]


ALL = (*ATTENTION, *BUILDERS)
