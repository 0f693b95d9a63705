"""Projection of random networks: the function stays, and the linear part of the group reaches the slice."""

from __future__ import annotations

import warnings
from random import Random

import pytest
import torch

from gaugefix import act_, discover, drift, project_
from gaugefix.errors import ConvergenceWarning, NoEffectWarning, SliceError
from gaugefix.symmetry import LinearSymmetry
from gaugefix.testing import randomise_
from tests.discovery.random_networks import random_network


def outputs(net, args):
    torch.manual_seed(1)
    with torch.no_grad():
        found = net(*[x.clone() for x in args])  # networks may change their inputs in place
    return found if isinstance(found, torch.Tensor) else torch.cat([part.flatten() for part in found])


@pytest.mark.parametrize("first", range(0, 150, 30))
def test_projection_keeps_the_function_and_reaches_the_slice(first):
    projected = 0
    for seed in range(first, first + 30):
        torch.manual_seed(seed)
        net, args = random_network(Random(seed))
        net = net.double().eval()
        randomise_(net, seed)
        args = [x.double() if x.is_floating_point() else x for x in args]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NoEffectWarning)
            gauge = discover(net, args)
        if not any(s.group.dimension for s in gauge.applied):
            continue
        before = outputs(net, args)
        act_(net, gauge, gauge.random(0.5, seed, conditional=True))
        for kind in ("minimal_norm", "unit_norm"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                try:
                    project_(net, gauge, kind)
                except SliceError:
                    assert kind == "unit_norm"  # units that feed themselves
                    continue
                assert (outputs(net, args) - before).norm() <= 1e-11 * before.norm(), (seed, kind)
                if kind == "minimal_norm":
                    left = drift(net, gauge, kind).per_symmetry
                    linear = [rms for name, rms in left.items() if isinstance(gauge[name], LinearSymmetry)]
                    assert max(linear, default=0.0) <= 1e-3, seed
                    projected += 1
    assert projected >= 15
