"""The order of units: by size, the same from everywhere, and decided where norms agree."""

import copy

import torch
from torch import nn

from gaugefix import act_, declare
from gaugefix.groups import Permutations
from gaugefix.slices.ordering import order
from tests.slices.small_nets import build


def hidden(net, gauge, turning=()):
    (s,) = [s for s in gauge.applied if isinstance(s.group, Permutations)]
    tensors = {name: p.detach() for name, p in gauge.check(net).items()}
    return s.act(tensors, order(s, tensors, turning))


def pair(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 5, bias=False), nn.Linear(5, 6, bias=False)).double()
    return net, declare(net, Permutations(5), {"0.weight": 0}, {"1.weight": 1})


def test_units_come_by_decreasing_size():
    net, gauge = pair()
    moved = hidden(net, gauge, turning={"0.weight", "1.weight"})
    sizes = moved["0.weight"].square().sum(1) + moved["1.weight"].square().sum(0)
    assert bool((sizes.diff() < 0).all())


def test_units_of_equal_norm_are_told_apart_by_their_fourth_powers():
    net, gauge = pair()
    for layer in net:
        nn.init.orthogonal_(layer.weight)
    other = copy.deepcopy(net)
    act_(other, gauge, gauge.random(seed=1, discrete=True))
    assert not torch.equal(net[0].weight, other[0].weight)
    here, there = hidden(net, gauge), hidden(other, gauge)
    assert all(torch.equal(here[name], there[name]) for name in here)


def test_equal_units_keep_their_order():
    net, gauge = pair()
    with torch.no_grad():
        net[0].weight[1:] = net[0].weight[0]
        net[1].weight[:, 1:] = net[1].weight[:, :1]
    (s,) = gauge.applied
    tensors = {name: p.detach() for name, p in gauge.check(net).items()}
    assert order(s, tensors, ()).tolist() == [0, 1, 2, 3, 4]


def test_hidden_layers_of_one_net_do_not_depend_on_each_other():
    net, gauge, _ = build("mlp")
    tensors = {name: p.detach() for name, p in gauge.check(net).items()}
    first, second = [s for s in gauge.applied if isinstance(s.group, Permutations)][:2]
    alone = order(second, tensors, ())
    after = order(second, {**tensors, **first.act(tensors, order(first, tensors, ()))}, ())
    assert torch.equal(alone, after)
