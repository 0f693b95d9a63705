"""Small attention networks in float64, with generic parameters, their gauge groups and batches."""

from __future__ import annotations

import copy
from functools import cache

import torch
from torch import Tensor, nn

import gaugefix
from gaugefix import GaugeGroup
from gaugefix.groups import MatrixGroup
from gaugefix.symmetry import LinearSymmetry
from gaugefix.testing.redundancy import randomise_
from tests.discovery import transformers_small as small

BUILDERS = {
    "multi-head": small.SelfAttention,
    "cross": small.CrossAttention,
    "grouped": small.GroupedQueries,
    "encoder": lambda: small.encoder(norm_first=True),
    "post-norm": lambda: small.encoder(norm_first=False),
    "decoder": small.Decoder,
    "rotary": lambda: small.RotaryDecoder(tied=False),
}
"""Biases, key and value shifts in all but the rotary decoder; layer norms with kernels in the last four."""


def inputs(name: str, seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(100 + seed)
    if name in ("decoder", "rotary"):
        return (torch.randint(13, (6, 8), generator=generator),)
    x = torch.randn(3, 5, 8, generator=generator, dtype=torch.float64)
    return (x[..., :6], x[:, :4, :5].flip(0)) if name == "cross" else (x,)


@cache
def _built(name: str) -> tuple[nn.Module, GaugeGroup]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = BUILDERS[name]().double()
    return net, gaugefix.discover(net, inputs(name, 0))


def attention(
    name: str, dtype: torch.dtype = torch.float64, steps: int = 4
) -> tuple[nn.Module, GaugeGroup, list[tuple[Tensor, ...]]]:
    """A fresh net, its gauge group, and the inputs of ``steps`` batches."""
    prototype, gauge = _built(name)
    net = copy.deepcopy(prototype)
    randomise_(net, 1)
    batches = [inputs(name, seed) for seed in range(steps)]
    cast = [tuple(t.to(dtype) if t.is_floating_point() else t for t in batch) for batch in batches]
    return net.to(dtype), gauge, cast


def matrices(gauge: GaugeGroup) -> GaugeGroup:
    """The part of ``gauge`` that mixes coordinates linearly."""
    return gauge.select(
        lambda s: isinstance(s, LinearSymmetry) and isinstance(s.group, MatrixGroup) and s.exactness.applied
    )


def weigh(net: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """A loss that weighs all outputs differently."""
    y = net(*batch).double()
    weights = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).reshape(y.shape)
    return ((y - weights) ** 2).mean() + (weights * y).sum() / 8
