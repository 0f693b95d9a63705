"""Muon: its momentum is an average of gradients and moves exactly; the step that it takes from there knows no gauge.

Muon orthogonalises the momentum in bfloat16, so that even a covariant step agrees to 2⁻⁸ only, unless the change of
gauge is exact in floating point (signs, powers of two).
"""

import copy

import pytest
import torch

from gaugefix import act_
from gaugefix.symmetry import Element
from tests.slices.small_nets import build, loss, relative
from tests.transport.attention_nets import attention, matrices, weigh

pytestmark = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9")
BF16 = torch.finfo(torch.bfloat16).eps


def make(net, **options):
    """Muon on the weights; whatever else there is stays as it is."""
    return torch.optim.Muon([{"params": [p]} for p in net.parameters() if p.ndim == 2], **{"lr": 1e-2, **options})


def train(net, optimizer, batches):
    for batch in batches:
        net.zero_grad()
        loss(net, batch).backward()
        optimizer.step()


@pytest.mark.parametrize("name", ["multi-head", "encoder"])
def test_the_momentum_is_that_of_the_gradients_in_the_new_gauge(name):
    """All along a training, gradients are recomputed at the moved parameters and averaged as Muon averages."""
    net, gauge, batches = attention(name, steps=6)
    gauge = matrices(gauge)
    element = gauge.random(scale=0.5, seed=1)
    optimizer = make(net, momentum=0.9)
    expected = {n: torch.zeros_like(p) for n, p in net.named_parameters() if p.ndim == 2}
    for batch in batches:
        there = copy.deepcopy(net)
        act_(there, gauge, element)
        for model in (net, there):
            model.zero_grad()
            weigh(model, batch).backward()
        for n in expected:
            expected[n].lerp_(there.get_parameter(n).grad, 1 - 0.9)
        optimizer.step()
    before = {n: optimizer.state[net.get_parameter(n)]["momentum_buffer"].clone() for n in expected}
    act_(net, gauge, element, [optimizer])
    moved = {leg.parameter for s in gauge.applied for leg in s.legs} & set(expected)
    assert moved
    for n, momentum in expected.items():
        p = net.get_parameter(n)
        assert relative(optimizer.state[p]["momentum_buffer"], momentum) < 1e-12, n
        assert n not in moved or relative(before[n], momentum) > 1e-2


def distance(net, other):
    pairs = zip(net.parameters(), other.parameters(), strict=True)
    return max(relative(p, q) for p, q in pairs)


def continued(net_name, element, gauge, options, factors=None):
    """(distance to g·θ_t with transport, without transport of the state, length of the re-expressed trajectory)."""
    batches = [build(net_name, seed=seed)[2] for seed in range(16)]
    net = build(net_name)[0]
    optimizer = make(net, **options)
    train(net, optimizer, batches[:8])
    ends = []
    for transported in (True, False):
        moved = copy.deepcopy(net)
        other = make(moved, **options)
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        act_(moved, gauge, element, [other] if transported else [])
        for group, c in zip(other.param_groups, factors or [1.0] * len(other.param_groups), strict=True):
            group["lr"] *= c
            group["weight_decay"] /= c
        start = copy.deepcopy(moved)
        train(moved, other, batches[8:])
        ends.append(moved)
    train(net, optimizer, batches[8:])
    act_(net, gauge, element)
    return distance(ends[0], net), distance(ends[1], net), distance(start, net)


OPTIONS = [{}, {"nesterov": False, "weight_decay": 0.0}, {"adjust_lr_fn": "match_rms_adamw"}]


@pytest.mark.parametrize("options", OPTIONS)
def test_uniform_powers_of_two_with_covariant_hyperparameters(options):
    """The orthogonal factor forgets the size of a gradient: the learning rate grows by c, decoupled decay by 1/c."""
    _, gauge, _ = build("mlp without bias")
    a, b, c = 4.0, 0.25, 2.0
    scales = {"0:scale": a, "2:scale": b, "4:scale": c}
    element = Element(tuple((s, torch.full(gauge[s].group.shape, x, dtype=torch.float64)) for s, x in scales.items()))
    right, wrong, length = continued("mlp without bias", element, gauge, options, [a, b / a, c / b, 1 / c])
    assert length > 1e-2
    assert right < 1e-12
    assert wrong > 0.1 * length


@pytest.mark.parametrize("options", OPTIONS)
def test_signs_and_permutations_need_no_other_hyperparameters(options):
    _, gauge, _ = build("odd")
    drawn = gauge.random(scale=1.0, seed=4, discrete=True)
    unit = [(s, value.sign() if value.is_floating_point() else value) for s, value in drawn.steps]
    right, wrong, length = continued("odd", Element(tuple(unit)), gauge, options)
    assert length > 1e-2
    assert right < 4 * BF16 * length  # sums in another order, in bfloat16
    assert wrong > 4 * right


def test_the_step_itself_is_not_covariant_under_a_scale():
    """What transport cannot mend: the orthogonal factor of g⁻ᵀB is not g times that of B. The next step differs."""
    _, gauge, _ = build("mlp without bias")
    element = gauge.random(scale=1.0, seed=1)
    right, _, length = continued("mlp without bias", element, gauge, {})
    assert right > 0.1 * length
