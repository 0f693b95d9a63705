"""Random networks and random elements: no distance along an orbit."""

import copy
import warnings
from random import Random

import pytest
import torch

from gaugefix import act_, discover, distance
from gaugefix.errors import ConvergenceWarning, NoEffectWarning
from gaugefix.testing import randomise_
from tests.discovery.random_networks import random_network


@pytest.mark.parametrize("first", range(0, 40, 20))
def test_a_random_element_is_not_seen(first):
    unique = 0
    for seed in range(first, first + 20):
        torch.manual_seed(seed)
        net, args = random_network(Random(seed))
        net = net.double().eval()
        randomise_(net, seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NoEffectWarning)
            warnings.simplefilter("ignore", ConvergenceWarning)
            gauge = discover(net, [x.double() if x.is_floating_point() else x for x in args])
            other = copy.deepcopy(net)
            act_(other, gauge, gauge.random(0.3, seed + 1, discrete=True, conditional=True))
            found = distance(net, other, gauge)
        if not found.unfixed:  # else the distance is that of an approach, which may stop short
            assert float(found) < 1e-8, seed
            unique += 1
    assert unique >= 15
