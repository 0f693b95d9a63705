"""Powers of two: an action without any rounding."""

import copy
import math

import pytest
import torch
from torch import nn

from gaugefix import act_, project_
from gaugefix.groups import DiagonalGroup
from gaugefix.slices import MinimalNorm, dyadic
from tests.slices.small_nets import SCALED, build

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def is_power_of_two(value):
    mantissa, _ = torch.frexp(value)
    return bool((mantissa.abs() == 0.5).all())


@pytest.mark.parametrize("kind", ["minimal_norm", "unit_norm"])
@pytest.mark.parametrize("name", ["mlp", "gated", "grouped", "bottleneck", "normed"])
def test_every_factor_is_a_power_of_two(name, kind):
    net, gauge, _ = build(name)
    act_(net, gauge, gauge.random(scale=2.0, seed=1, conditional=True))
    element = project_(net, gauge, kind, dyadic=True)
    assert element.steps
    assert all(isinstance(gauge[name].group, DiagonalGroup) and is_power_of_two(v) for name, v in element.steps)
    assert any(bool((value != 1).any()) for _, value in element.steps)


def test_rounding_is_to_the_nearest_power_and_keeps_signs():
    _, gauge, _ = build("gated")
    element = gauge.random(scale=2.0, seed=3, discrete=True, conditional=True)
    rounded = dyadic(gauge, element)
    signed = [name for name, _ in rounded.steps if gauge[name].group.symbol.startswith("R*")]
    assert signed
    for name, value in rounded.steps:
        exact = element.values[name]
        assert torch.equal(value.sign(), exact.sign())
        assert bool(((value / exact).log2().abs() <= 0.5 + 1e-12).all())
    assert dict(dyadic(gauge, rounded).steps).keys() == dict(rounded.steps).keys()
    assert all(torch.equal(dyadic(gauge, rounded).values[name], value) for name, value in rounded.steps)


@pytest.mark.parametrize("exponent", [-300, -20, -1, 0, 1, 20, 300])
def test_powers_of_two_stay_as_they_are(exponent):
    _, gauge, _ = build("mlp")
    element = gauge.random(0.0, conditional=True)
    element = type(element)(tuple((name, value * 2.0**exponent) for name, value in element.steps))
    for name, value in dyadic(gauge, element).steps:
        assert value.tolist() == [math.ldexp(1.0, exponent)] * gauge[name].group.coordinates


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SCALED)
def test_outputs_are_the_same_to_the_last_bit(name, dtype, train):
    net, gauge, batch = build(name, dtype)
    # Within the range of float16, whose subnormal numbers would round: unbalanced, but by single powers of two.
    act_(net, gauge, dyadic(gauge, gauge.random(scale=1.0, seed=5, conditional=True)))
    net.train(train)
    moved = copy.deepcopy(net)
    element = project_(moved, gauge, "minimal_norm", dyadic=True)
    assert any(bool((value != 1).any()) for _, value in element.steps)
    assert not all(torch.equal(p, q) for p, q in zip(net.parameters(), moved.parameters(), strict=True))
    for _ in range(2):  # the second time with the running statistics that the first left behind
        assert torch.equal(moved(batch), net(batch))


@pytest.mark.parametrize("name", SCALED)
def test_the_slice_is_reached_up_to_half_a_power_of_two_per_unit(name):
    net, gauge, _ = build(name)
    act_(net, gauge, gauge.random(scale=2.0, seed=1, conditional=True))
    project_(net, gauge, MinimalNorm(1e-8), dyadic=True)
    again = project_(net, gauge, MinimalNorm(1e-8), dyadic=True)
    assert all(bool((value == 1).all()) for _, value in again.steps)
    rest = project_(net, gauge, MinimalNorm(1e-8))
    left = [value.log().abs().max() for name, value in rest.steps if isinstance(gauge[name].group, DiagonalGroup)]
    assert 0 < float(max(left)) <= 0.5 * math.log(2) + 1e-6


@pytest.mark.parametrize("name", ["bottleneck", "normed", "flattened"])
def test_matrices_and_shifts_are_left_out_and_what_scales_is_solved_without_them(name):
    net, gauge, _ = build(name)
    act_(net, gauge, gauge.random(scale=1.0, seed=1, conditional=True))
    element = project_(net, gauge, MinimalNorm(1e-8), dyadic=True)
    diagonal = gauge.select(lambda s: isinstance(s.group, DiagonalGroup))
    assert {n for n, _ in element.steps} == {s.name for s in diagonal.applied if s.group.dimension}
    rest = project_(net, diagonal, MinimalNorm(1e-8))
    assert max(float(value.log().abs().max()) for _, value in rest.steps) <= 0.5 * math.log(2) + 1e-6


def test_repeated_steps_are_rounded_as_their_product():
    _, gauge, _ = build("mlp")
    small = gauge.random(scale=0.0, conditional=True)
    small = type(small)(tuple((name, value * 2**0.3) for name, value in small.steps))
    twice = dyadic(gauge, small.then(small))  # 2^0.6 rounds to 2, though 2^0.3 alone rounds to 1
    assert all(value.tolist() == [2.0] * gauge[name].group.coordinates for name, value in twice.steps)
    assert len(twice.steps) == len(small.steps)


def test_gradients_and_optimizer_states_move_without_rounding():
    net, gauge, batch = build("mlp", torch.float32)
    optimizer = torch.optim.Adam(net.parameters(), amsgrad=True)
    net(batch).square().sum().backward()
    optimizer.step()
    kept = [p.grad.clone() for p in net.parameters()]
    states = [{k: v.clone() for k, v in optimizer.state[p].items()} for p in net.parameters()]
    element = project_(net, gauge, "minimal_norm", [optimizer], dyadic=True)
    act_(net, gauge, gauge.inverse(element), [optimizer])
    for p, gradient, state in zip(net.parameters(), kept, states, strict=True):
        assert torch.equal(p.grad, gradient)
        assert all(torch.equal(optimizer.state[p][key], value) for key, value in state.items())


def test_a_module_without_scalings_has_no_dyadic_element():
    net, gauge, _ = build("odd")
    before = copy.deepcopy(net)
    assert project_(net, gauge, "minimal_norm", dyadic=True).steps == ()
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before.parameters(), strict=True))
    assert isinstance(net, nn.Module)
