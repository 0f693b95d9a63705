"""Soundness on random networks: whatever discover claims, verify must confirm in float64.

``verify`` re-randomises parameters and statistics, draws fresh inputs in two batch sizes, and compares outputs in eval
mode, in train mode and in eval mode again, signs and permutations included.
"""

import warnings
from collections import Counter
from random import Random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gaugefix import discover, verify
from gaugefix.errors import VerificationError
from gaugefix.symmetry import GaugeGroup
from tests.discovery.random_networks import INSTRUCTIONS, Program, random_network

TOLERANCE = 1e-12
CHUNK, SUITE = 50, 500  # networks of one test, networks of the default suite
SLOW_CHUNK, SLOW_SUITE = 500, 10_000


def examine(model: Program, args: tuple[torch.Tensor, ...], seed: int) -> GaugeGroup:
    """Discover and verify; a failure shows the program and the group."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no symmetry in some networks; torch's remarks on unusual shapes
        gauge = discover(model, args)
        try:
            verify(model, gauge, args, tolerance=TOLERANCE, seed=seed)
            if gauge.dropout:  # what is left of the dropout-free symmetries while dropout is active
                verify(model, gauge.exact(), args, tolerance=TOLERANCE, seed=seed)
        except VerificationError as error:
            shapes = ", ".join(f"r{k} {tuple(x.shape)}" for k, x in enumerate(args))
            raise AssertionError(f"{error}\n{shapes}\n{model}\n{gauge}") from None
    return gauge


def examine_seeds(seeds: range) -> list[GaugeGroup]:
    gauges, false = [], []
    for seed in seeds:
        model, args = random_network(Random(seed))
        try:
            gauges.append(examine(model, args, seed))
        except AssertionError as error:
            false.append(f"seed {seed}: {error}")
    assert not false, "\n\n".join(false)
    return gauges


@pytest.mark.parametrize("start", range(0, SUITE, CHUNK))
def test_no_false_symmetry(start):
    gauges = examine_seeds(range(start, start + CHUNK))
    # Not vacuous: most networks have symmetries, continuous ones too.
    assert sum(bool(gauge.applied) for gauge in gauges) >= 0.65 * CHUNK
    assert sum(gauge.dimension > 0 for gauge in gauges) >= 0.6 * CHUNK


@pytest.mark.slow
@pytest.mark.parametrize("start", range(SUITE, SUITE + SLOW_SUITE, SLOW_CHUNK))
def test_no_false_symmetry_at_length(start):
    examine_seeds(range(start, start + SLOW_CHUNK))


@settings(max_examples=60, derandomize=True, suppress_health_check=list(HealthCheck))
@given(random=st.randoms(use_true_random=False), steps=st.integers(1, 7))
def test_no_false_symmetry_shrinking(random, steps):
    model, args = random_network(random, steps)
    examine(model, args, seed=0)


def test_the_same_seed_gives_the_same_network():
    (one, (x,)), (two, (y,)) = random_network(Random(7)), random_network(Random(7))
    assert str(one) == str(two)
    assert torch.equal(x, y)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_networks_are_varied():
    """Every kind of layer, sharing, frozen parameters, several inputs and outputs, dropout: all of them occur."""
    kinds: Counter[str] = Counter()
    for seed in range(300):
        model, args = random_network(Random(seed))
        names = {type(m).__name__ for m in model.modules()}
        texts = {str(getattr(m, "text", "")) for m in model.operations}
        kinds.update(names)
        kinds["shared"] += len({id(m) for m in model.operations}) < len(model.operations)
        kinds["frozen"] += any(not p.requires_grad for p in model.parameters())
        kinds["several inputs"] += len(args) > 1
        kinds["several outputs"] += len(model.outputs) > 1
        kinds["in place"] += any(getattr(m, "inplace", False) for m in model.operations) or any("_" in t for t in texts)
        kinds["concatenation"] += any(t.startswith("cat") for t in texts)
    layers = "Linear Conv1d Conv2d ConvTranspose1d BatchNorm1d BatchNorm2d GroupNorm LayerNorm RMSNorm InstanceNorm2d"
    others = "Embedding Bilinear PReLU Dropout Borrowed ByMode ParametrizedLinear shared frozen concatenation"
    for name in (*layers.split(), *others.split(), "several inputs", "several outputs", "in place"):
        assert kinds[name] >= 3, name
    assert len(INSTRUCTIONS) >= 12
