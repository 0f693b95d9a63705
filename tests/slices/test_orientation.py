"""Signs: fixed whatever they were, over layers, where groups overlap, and where sums are small."""

import copy

import pytest
import torch
from torch import nn

from gaugefix import act_, declare
from gaugefix.groups import SignedScaling, Signs
from gaugefix.slices.orientation import orient, sign_legs
from gaugefix.symmetry import Element
from tests.slices.attention_nets import any_net
from tests.slices.small_nets import build


def flipped(net, gauge, seed):
    """A copy with random signs of every symmetry that has them."""
    generator = torch.Generator().manual_seed(seed)
    steps = []
    for s in gauge.applied:
        if isinstance(s.group, (SignedScaling, Signs)):
            flips = 2.0 * torch.randint(2, (s.group.n,), generator=generator).double() - 1.0
            steps.append((s.name, flips))
    other = copy.deepcopy(net)
    act_(other, gauge, Element(tuple(steps)))
    return other


def oriented(net, gauge):
    tensors = {name: t.detach() for name, t in gauge.check(net).items()}
    for name, value in orient([s for s in gauge.applied if sign_legs(s)], tensors, {}).items():
        gauge[name].group.check(value)
        tensors.update(gauge[name].act(tensors, value))
    return tensors


@pytest.mark.parametrize("name", ["odd", "gated", "like Llama, tied", "pre-norm encoder"])
@pytest.mark.parametrize("seed", range(3))
def test_random_signs_are_undone(name, seed):
    net, gauge, _ = any_net(name)
    here, there = oriented(net, gauge), oriented(flipped(net, gauge, seed), gauge)
    for label in here:
        assert torch.equal(here[label], there[label]), label


def test_orienting_twice_flips_nothing():
    net, gauge, _ = build("odd")
    tensors = oriented(net, gauge)
    for name, value in orient([s for s in gauge.applied if sign_legs(s)], tensors, {}).items():
        assert torch.equal(value, gauge[name].group.identity()), name


def test_layers_open_one_another_from_either_end():
    """Without biases only the first and the last layer have an axis without signs."""
    torch.manual_seed(0)
    net = nn.Sequential(*[nn.Linear(4, 4, bias=False) for _ in range(5)]).double()
    gauge = None
    for k in range(4):
        more = {} if gauge is None else {"gauge": gauge}
        gauge = declare(net, Signs(4), {f"{k}.weight": 0}, {f"{k + 1}.weight": 1}, **more)
    here, there = oriented(net, gauge), oriented(flipped(net, gauge, 1), gauge)
    assert all(torch.equal(here[name], there[name]) for name in here)


def test_a_symmetric_weight_between_two_hidden_layers_is_no_trap():
    """Sums that vanish by symmetry leave the decision to another leg."""
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 2, bias=True)).double()
    with torch.no_grad():
        net[0].weight.zero_()
        net[1].weight.copy_(torch.tensor([[1.0, -2.0, 3.0], [-1.0, 2.0, -3.0]]))
    gauge = declare(net, Signs(3), {"0.weight": 0}, {"1.weight": 1})
    here, there = oriented(net, gauge), oriented(flipped(net, gauge, 1), gauge)
    assert torch.equal(here["1.weight"], there["1.weight"])


def test_coordinates_that_are_to_stay_are_left_alone():
    net, gauge, _ = build("odd")
    (first, *_) = [s for s in gauge.applied if sign_legs(s)]
    tensors = {name: t.detach() for name, t in gauge.check(net).items()}
    free = orient([first], tensors, {})[first.name]
    away = flipped(net, gauge, 0)
    tensors = {name: t.detach() for name, t in gauge.check(away).items()}
    some = orient([first], tensors, {first.name: [0, 1, 2]})[first.name]
    assert torch.equal(some[:3], torch.ones(3, dtype=torch.float64))
    assert free.shape == some.shape
