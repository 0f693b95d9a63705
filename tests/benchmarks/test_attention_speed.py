"""Minimal norm of all attention heads of GPT-2 124M: 12 layers of 12 heads of size 64, width 768, with biases.

    OMP_NUM_THREADS=2 pytest tests/benchmarks/test_attention_speed.py --benchmark-only -s

Goal: at most 0.15 s on two cores for the solution of all QK and VO pairs. Acting with it is measured apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gaugefix
from gaugefix import GaugeGroup
from gaugefix.groups import GeneralLinear
from gaugefix.slices import get_slice
from gaugefix.symmetry import Exactness, Leg, LinearSymmetry
from tests.benchmarks.ratio import paired
from tests.discovery.transformers_small import Block

LAYERS, HEADS, SIZE = 12, 12, 64
WIDTH = HEADS * SIZE


class Gpt2(nn.Module):
    """The shape of GPT-2 124M without its head: blocks with fused projections."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*[Block(WIDTH, HEADS, 4 * WIDTH) for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(x))


def heads(net: Gpt2) -> GaugeGroup:
    """GL(64) per head between queries and keys, and between values and the output."""
    coordinate = np.arange(WIDTH)
    rows = [np.where(np.arange(3 * WIDTH) // WIDTH == k, np.arange(3 * WIDTH) % WIDTH, -1) for k in range(3)]
    symmetries, shapes = [], {}
    for k in range(LAYERS):
        qkv, out = f"blocks.{k}.qkv", f"blocks.{k}.out.weight"
        q, key, v = (
            (Leg(f"{qkv}.weight", row[:, None], power, 0), Leg(f"{qkv}.bias", row, power))
            for row, power in zip(rows, (1, -1, 1), strict=True)
        )
        group = GeneralLinear(SIZE, HEADS)
        symmetries.append(LinearSymmetry(f"{k}:qk", Exactness.EXACT, acting=group, legs=(*q, *key)))
        last = Leg(out, coordinate[None], -1, 1)
        symmetries.append(LinearSymmetry(f"{k}:vo", Exactness.EXACT, acting=group, legs=(*v, last)))
        shapes |= {f"{qkv}.weight": (3 * WIDTH, WIDTH), f"{qkv}.bias": (3 * WIDTH,), out: (WIDTH, WIDTH)}
    return GaugeGroup(tuple(symmetries), shapes)


@pytest.fixture(scope="module")
def case() -> tuple[Gpt2, GaugeGroup]:
    torch.manual_seed(0)
    net = Gpt2()
    for p in net.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, std=0.02)
    gauge = heads(net)
    assert gauge.dimension == 1_179_648
    return net, gauge


def milliseconds(work: Callable[[], object], rounds: int = 7) -> float:
    """The best of some rounds: what the work takes when nothing else runs."""
    found = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        found.append(time.perf_counter() - begin)
    return 1e3 * min(found)


@pytest.mark.parametrize("start", ["initial", "far", "on the slice"])
def test_minimal_norm_of_all_heads(benchmark, case, start: str) -> None:
    net, gauge = case
    slice = get_slice("minimal_norm")
    if start == "far":
        gaugefix.act_(net, gauge, gauge.random(0.5, seed=1))
    elif start == "on the slice":
        gaugefix.project_(net, gauge, slice)
    tensors = gauge.check(net)
    solve = lambda: slice.solve(gauge, tensors)  # noqa: E731 - a thunk to time
    benchmark.pedantic(solve, rounds=10, warmup_rounds=2)
    element = gauge.random(0.0)
    figures = {
        "solve_ms": milliseconds(solve),
        "act_ms": milliseconds(lambda: gaugefix.act_(net, gauge, element)),
        "threads": float(torch.get_num_threads()),
    }
    weights = [t.detach() for t in tensors.values()]
    figures["solve_to_floor"] = paired(solve, lambda: torch._foreach_norm(weights), rounds=10, warmup=1)
    benchmark.extra_info.update(figures)
    print("  ".join(f"{name} {value:.4g}" for name, value in figures.items()))  # noqa: T201 - the figures are the result


def test_share_of_a_training_step(benchmark, case) -> None:
    """Solve and act every 100 steps against a step of AdamW at batch 8 × 256 (without embeddings and head)."""
    net, gauge = case
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-6)
    x = torch.randn(8, 256, WIDTH)

    def step() -> None:
        optimizer.zero_grad()
        F.mse_loss(net(x), x).backward()
        optimizer.step()

    step()
    seconds = 1e-3 * milliseconds(step, rounds=2)
    project = lambda: gaugefix.project_(net, gauge, "minimal_norm", optimizers=[optimizer])  # noqa: E731 - a thunk
    benchmark.pedantic(project, rounds=3, warmup_rounds=1)
    share = 1e-3 * milliseconds(project, rounds=3) / (100 * seconds)
    benchmark.extra_info.update(step_s=seconds, share_every_100=share)
    print(f"step {seconds:.3g} s  share of a projection every 100 steps {share:.2%}")  # noqa: T201 - the figures
