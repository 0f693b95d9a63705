"""Training after transport is the re-expressed training: g·θ_t, wherever theory says so.

A parameter that is scaled by c as a whole has gradients scaled by 1/c. SGD follows the re-expressed trajectory with
learning rate c²·lr (and weight decay wd/c²), an adaptive method with c·lr, eps/c and decoupled decay wd/c (coupled
wd/c²). Signs, permutations and rotations need no change of hyperparameters (rotations: SGD only).
"""

import copy

import pytest
import torch
from torch import nn

from gaugefix import act_, declare
from gaugefix.groups import Orthogonal
from gaugefix.symmetry import Element
from gaugefix.transport import LAWS
from tests.slices.small_nets import build, loss

SETTINGS = {
    "SGD": [
        {"lr": 1e-3, "momentum": 0.9},
        {"lr": 1e-3, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
        {"lr": 1e-3, "momentum": 0.9, "dampening": 0.3},
    ],
    "Adam": [{"lr": 1e-2, "eps": 1e-3}, {"lr": 1e-2, "amsgrad": True, "weight_decay": 0.05}],
    "AdamW": [{"lr": 1e-2, "eps": 1e-3, "weight_decay": 0.1}, {"lr": 1e-2, "amsgrad": True, "weight_decay": 0.1}],
    "NAdam": [{"lr": 1e-2, "eps": 1e-3}],
    "RAdam": [{"lr": 1e-2, "eps": 1e-3, "betas": (0.9, 0.95)}],
    "Adagrad": [{"lr": 1e-2, "eps": 1e-3, "lr_decay": 0.1}],
    "RMSprop": [{"lr": 1e-3, "eps": 1e-3}, {"lr": 1e-3, "eps": 1e-3, "momentum": 0.9, "centered": True}],
}
TRAJECTORIES = [
    pytest.param(name, options, id=f"{name}-{k}") for name in SETTINGS for k, options in enumerate(SETTINGS[name])
]
over_trajectories = pytest.mark.parametrize(("name", "options"), TRAJECTORIES)
BEFORE, AFTER = 12, 12  # steps; the first ones of RAdam are those of SGD, so they end before the action


def make(name, net, options):
    """One group of hyperparameters per parameter."""
    return getattr(torch.optim, name)([{"params": [p]} for p in net.parameters()], **options)


def train(net, optimizer, batches):
    for batch in batches:
        optimizer.zero_grad()
        loss(net, batch).backward()
        optimizer.step()


def batches_of(net_name):
    batches = [build(net_name, seed=seed)[2] for seed in range(BEFORE + AFTER)]
    return batches[:BEFORE], batches[BEFORE:]


def covariant_(optimizer, factors):
    """Set the hyperparameters of the new gauge; ``factors`` has one c per parameter."""
    name = type(optimizer).__name__
    for group, c in zip(optimizer.param_groups, factors, strict=True):
        group["lr"] *= c**2 if name == "SGD" else c
        group["weight_decay"] /= c if name == "AdamW" else c**2
        if "eps" in group:
            group["eps"] /= c


def distance(net, other):
    pairs = zip(net.parameters(), other.parameters(), strict=True)
    return max(float(((p - q).norm() / q.norm()).detach()) for p, q in pairs)


def continued(name, options, net_name, element, gauge, factors=None):
    """(distance to g·θ_t with transport, without transport of the state, length of the re-expressed trajectory)."""
    first, second = batches_of(net_name)
    net = build(net_name)[0]
    optimizer = make(name, net, options)
    train(net, optimizer, first)
    ends = []
    for transported in (True, False):
        moved = copy.deepcopy(net)
        other = make(name, moved, options)
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        act_(moved, gauge, element, [other] if transported else [])
        if factors is not None:
            covariant_(other, factors)
        start = copy.deepcopy(moved)
        train(moved, other, second)
        ends.append(moved)
    train(net, optimizer, second)
    act_(net, gauge, element)  # g·θ_t, the trajectory to compare with
    return distance(ends[0], net), distance(ends[1], net), distance(start, net)


@over_trajectories
def test_uniform_scales_with_covariant_hyperparameters(name, options):
    _, gauge, _ = build("mlp")
    scales = {"0:scale": 3.0, "2:scale": 0.25, "4:scale": 1.7}
    element = Element(tuple((s, torch.full(gauge[s].group.shape, c, dtype=torch.float64)) for s, c in scales.items()))
    a, b, c = scales.values()
    factors = [a, a, b / a, b, c / b, c, 1 / c, 1.0]  # weight and bias of every layer
    right, wrong, length = continued(name, options, "mlp", element, gauge, factors)
    assert length > 1e-3
    assert right < 1e-12
    assert wrong > 1e5 * right


@over_trajectories
@pytest.mark.parametrize("net_name", ["odd", "gated", "residual conv"])
def test_signs_and_permutations_need_no_other_hyperparameters(name, options, net_name):
    _, gauge, _ = build(net_name)
    drawn = gauge.random(scale=1.0, seed=4, discrete=True)
    unit = [(s, value.sign() if value.is_floating_point() else value) for s, value in drawn.steps]
    right, wrong, length = continued(name, options, net_name, Element(tuple(unit)), gauge)
    assert length > 1e-3
    assert right < 1e-12
    assert wrong > 1e5 * right


def test_a_rotation_needs_no_other_hyperparameters_of_sgd():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    gauge = declare(net, Orthogonal(4), {"0.weight": 0, "0.bias": 0}, {"1.weight": 1})
    element, batches = gauge.random(scale=1.0, seed=1), torch.randn(24, 8, 3).double()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2, momentum=0.9)
    train(net, optimizer, batches[:12])
    moved = copy.deepcopy(net)
    other = torch.optim.SGD(moved.parameters(), lr=1e-2, momentum=0.9)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    act_(moved, gauge, element, [other])
    train(moved, other, batches[12:])
    train(net, optimizer, batches[12:])
    act_(net, gauge, element)
    assert distance(moved, net) < 1e-11


def test_accumulated_gradients_go_on_accumulating():
    """Half a batch before the action, half after: the same gradient as the whole batch in the new gauge."""
    net, gauge, batch = build("mlp")
    other = copy.deepcopy(net)
    element = gauge.random(scale=1.0, seed=1)
    loss(net, batch[:8]).backward()
    act_(net, gauge, element)
    loss(net, batch[8:]).backward()
    act_(other, gauge, element)
    loss(other, batch).backward()
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-11, atol=1e-11)


def test_every_row_is_tested():
    assert {*SETTINGS, "Muon"} == set(LAWS)  # Muon: test_muon.py
