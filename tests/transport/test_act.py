"""act_: what moves, what does not, and nothing at all where anything is wrong."""

import copy

import pytest
import torch

from gaugefix import act_
from gaugefix.symmetry import Element, ShiftSymmetry
from gaugefix.testing import tolerance
from tests.slices.small_nets import BUILDERS, SCALED, build, loss, parameters, relative, scalings
from tests.transport.fingerprint import fingerprint

over_nets = pytest.mark.parametrize("name", BUILDERS)


@over_nets
@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
def test_the_function_stays_and_the_parameters_move(name, train):
    net, gauge, batch = build(name)
    net.train(train)
    moved = copy.deepcopy(net)
    act_(moved, gauge, gauge.random(scale=1.0, seed=1, discrete=True, conditional=True))
    assert max(relative(p, q) for p, q in zip(moved.parameters(), net.parameters(), strict=True)) > 0.1
    for _ in range(2):  # in train mode the second batch is seen after the statistics were updated
        torch.testing.assert_close(moved(batch), net(batch), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(moved.eval()(batch), net.eval()(batch), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", SCALED)
def test_float32_keeps_the_function_within_the_tolerance(name):
    net, gauge, batch = build(name, torch.float32)
    before = net.eval()(batch)
    act_(net, gauge, gauge.random(scale=1.0, seed=1, conditional=True))
    assert relative(net(batch), before) <= tolerance(torch.float32)


@over_nets
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_inverse_element_brings_everything_back(name, dtype):
    net, gauge, batch = build(name, dtype)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0, momentum=0.9)
    loss(net, batch).backward()
    optimizer.step()
    before, gradients = parameters(net), {n: p.grad.clone() for n, p in net.named_parameters()}
    buffers = {n: b.clone() for n, b in net.named_buffers()}
    element = gauge.random(scale=0.5, seed=1, discrete=True, conditional=True)
    act_(net, gauge, element, [optimizer])
    act_(net, gauge, gauge.inverse(element), [optimizer])
    limit = tolerance(dtype, 4)
    for n, p in net.named_parameters():
        scale = float(before[n].abs().max())
        torch.testing.assert_close(p.detach(), before[n], rtol=limit, atol=limit * scale, msg=n)
        assert (p.grad - gradients[n]).abs().max() <= 4 * limit * max(float(g.abs().max()) for g in gradients.values())
    for n, b in net.named_buffers():
        torch.testing.assert_close(b, buffers[n], rtol=limit, atol=limit)


@over_nets
def test_an_element_after_another_is_their_composition(name):
    net, gauge, batch = build(name)
    loss(net, batch).backward()
    other = copy.deepcopy(net)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        q.grad = p.grad.clone()
    first, second = (gauge.random(scale=0.5, seed=seed, discrete=True, conditional=True) for seed in (1, 2))
    act_(net, gauge, first.then(second))
    act_(other, gauge, first)
    act_(other, gauge, second)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-11, atol=1e-12)


def test_the_identity_changes_no_bit():
    net, gauge, batch = build("residual conv", torch.float32)
    optimizer = torch.optim.Adam(net.parameters())
    loss(net, batch).backward()
    optimizer.step()
    before = fingerprint(net, optimizer)
    act_(net, gauge, gauge.random(scale=0.0, conditional=True), [optimizer])
    act_(net, gauge, Element(()), [optimizer])
    assert fingerprint(net, optimizer) == before


def test_tensors_stay_the_same_objects():
    net, gauge, batch = build("normed")
    loss(net, batch).backward()
    objects = [(p, p.data_ptr(), p.grad, p.grad.data_ptr()) for p in net.parameters()]
    act_(net, gauge, gauge.random(conditional=True))
    for p, (same, place, grad, where) in zip(net.parameters(), objects, strict=True):
        assert p is same
        assert p.data_ptr() == place
        assert p.grad is grad
        assert p.grad.data_ptr() == where


def test_a_graph_built_before_the_action_is_noticed():
    """The action is in place: a backward pass through the old values must fail rather than be wrong."""
    net, gauge, batch = build("mlp")
    value = loss(net, batch)
    act_(net, gauge, gauge.random(conditional=True))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_what_the_group_does_not_name_stays():
    net, gauge, batch = build("mlp")
    loss(net, batch).backward()
    bias, gradient = net[6].bias.detach().clone(), net[6].bias.grad.clone()
    act_(net, gauge, gauge.random(scale=1.0, conditional=True))
    assert torch.equal(net[6].bias, bias)
    assert torch.equal(net[6].bias.grad, gradient)


def test_scalings_behind_a_batch_norm_leave_its_statistics():
    net, gauge, _ = build("flattened")
    before = {n: b.clone() for n, b in net.named_buffers()}
    only = gauge.select(lambda s: s in scalings(gauge))
    act_(net, only, only.random(scale=1.0))
    assert all(torch.equal(b, before[n]) for n, b in net.named_buffers())


def test_a_shift_in_front_of_a_batch_norm_moves_its_mean():
    net, gauge, _ = build("flattened")
    (shift,) = [s for s in gauge.applied if isinstance(s, ShiftSymmetry)]
    before = {n: b.clone() for n, b in net.named_buffers()}
    c = gauge.random(scale=1.0, conditional=True).values[shift.name]
    act_(net, gauge, Element(((shift.name, c),)))
    torch.testing.assert_close(net[1].running_mean, before["1.running_mean"] + c)
    assert torch.equal(net[1].running_var, before["1.running_var"])
    assert torch.equal(net[1].num_batches_tracked, before["1.num_batches_tracked"])


def test_a_permutation_of_channels_permutes_their_statistics():
    net, gauge, _ = build("residual conv")
    before = {n: b.clone() for n, b in net.named_buffers()}
    element = gauge.random(seed=3, discrete=True, conditional=True)
    inner = next(n for n, v in element.steps if not v.is_floating_point() and gauge[n].group.coordinates == 5)
    order = element.values[inner]
    assert order.tolist() != list(range(5))
    act_(net, gauge, Element(((inner, order),)))
    for statistic in ("n1.running_mean", "n1.running_var"):
        assert torch.equal(net.get_buffer(statistic), before[statistic][order])
    assert torch.equal(net.norm.running_mean, before["norm.running_mean"])
