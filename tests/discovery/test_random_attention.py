"""Soundness on random attention networks: whatever discover claims, verify must confirm in float64.

In eval and train mode, with and without dropout, and on longer inputs wherever the network takes them.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
import torch

from gaugefix import verify
from gaugefix.errors import VerificationError
from gaugefix.symmetry import GaugeGroup
from tests.discovery.random_attention import random_attention
from tests.discovery.test_random_networks import TOLERANCE, examine

CHUNK, SUITE = 8, 24  # networks of one test, networks of the default suite
SLOW_CHUNK, SLOW_SUITE = 100, 3000


def examine_seeds(seeds: range) -> list[GaugeGroup]:
    gauges, false = [], []
    for seed in seeds:
        model, args, longer = random_attention(Random(seed))
        try:
            gauge = examine(model, args, seed)
            if longer is not None:
                verify(model, gauge, longer, tolerance=TOLERANCE, seed=seed)
                verify(model, gauge.exact(), longer, tolerance=TOLERANCE, seed=seed)
            gauges.append(gauge)
        except (AssertionError, VerificationError) as error:
            false.append(f"seed {seed}: {error}")
    assert not false, "\n\n".join(false)
    return gauges


@pytest.mark.parametrize("start", range(0, SUITE, CHUNK))
def test_no_false_symmetry(start):
    gauges = examine_seeds(range(start, start + CHUNK))
    assert sum(gauge.dimension > 0 for gauge in gauges) >= CHUNK - 2  # not vacuous


@pytest.mark.slow
@pytest.mark.parametrize("start", range(SUITE, SUITE + SLOW_SUITE, SLOW_CHUNK))
def test_no_false_symmetry_at_length(start):
    examine_seeds(range(start, start + SLOW_CHUNK))


def test_the_same_seed_gives_the_same_network():
    (one, (x,), _), (two, (y,), _) = random_attention(Random(7)), random_attention(Random(7))
    assert str(one) == str(two)
    assert torch.equal(x, y)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_networks_are_varied():
    """Layouts, positions that turn, masks, norms, tied heads, dropout, values that are returned, longer inputs."""
    kinds: Counter[str] = Counter()
    for seed in range(250):
        model, _, longer = random_attention(Random(seed))
        kinds["longer"] += longer is not None
        kinds["several outputs"] += len(model.outputs) > 1
        kinds["frozen"] += any(not p.requires_grad for p in model.parameters())
        for operation in model.operations:
            kinds.update([type(operation).__name__, str(getattr(operation, "text", "")).partition(":")[0]])
    functions = "scores softmax merge expand repeat norm turn mask addmm einsum sigmoid"
    layers = "LayerNorm RMSNorm Dropout Embedding DroppedAttention longer frozen"
    for name in (*functions.split(), *layers.split(), "several outputs", "x @ tied Eᵀ", "sdpa, mask", "sum of scores"):
        assert kinds[name] >= 3, name
    assert kinds["longer"] >= 100
