"""Projection of a neural ODE's state: ``pytest tests/benchmarks/test_state_gauge.py --benchmark-only -s``.

The goal is 5 ms for 64 states, from coordinates of condition 1000.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gaugefix
from gaugefix.projection import solve
from gaugefix.symmetry import GaugeGroup
from tests.discovery.neural_odes import INPUTS, OUTPUTS, NeuralOde, example
from tests.discovery.test_state_gauge import mixing_only, scrambled


def model(states: int) -> tuple[NeuralOde, GaugeGroup]:
    torch.manual_seed(0)
    net = NeuralOde(encoder=nn.Linear(INPUTS, states), decoder=nn.Linear(states, OUTPUTS))
    net.field.inner, net.field.outer = nn.Linear(states + 1, 2 * states), nn.Linear(2 * states, states)
    gauge = gaugefix.discover(net, example())
    scrambled(net, gauge, 1e3)
    return net, gauge


@pytest.mark.parametrize("states", [16, 64, 256])
@pytest.mark.parametrize("part", ["mixing", "mixing and shift"])
@pytest.mark.parametrize("slice", ["minimal_norm", "spectral"])
def test_solve(benchmark, states: int, part: str, slice: str) -> None:
    """The element that leads from a scrambled state onto the slice; nothing is changed."""
    net, gauge = model(states)
    group = mixing_only(gauge) if part == "mixing" else gauge
    benchmark.pedantic(solve, args=(net, group, slice), rounds=5 if states > 100 else 20, warmup_rounds=2)


def test_discovery(benchmark) -> None:
    """Through the solver: the trace holds the field once."""
    net, _ = model(64)
    benchmark.pedantic(gaugefix.discover, args=(net, example()), rounds=5, warmup_rounds=1)
