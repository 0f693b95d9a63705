"""Gradients after an action are the gradients of the new parameters, for every kind of symmetry."""

import copy

import pytest
import torch
from torch import nn

import gaugefix
from gaugefix import act_, declare, project_
from gaugefix.groups import GeneralLinear, Orthogonal, Permutations, PositiveScaling, SignedScaling, Signs, Translations
from gaugefix.slices import MinimalNorm
from gaugefix.symmetry import Element, ReaderKernel, ShiftSymmetry, WriterKernel
from tests.slices.small_nets import BUILDERS, build, loss


def assert_gradients_belong(net, batch):
    """Compare the gradients that ``net`` carries with those that a backward pass computes."""
    carried = {name: p.grad for name, p in net.named_parameters()}
    fresh = copy.deepcopy(net)
    fresh.zero_grad()
    loss(fresh, batch).backward()
    size = max(float(p.grad.to_dense().abs().max()) for p in fresh.parameters() if p.grad is not None)
    for name, p in fresh.named_parameters():
        if p.grad is None:
            assert carried[name] is None
            continue
        assert carried[name].layout == p.grad.layout
        got, expected = carried[name].to_dense(), p.grad.to_dense()
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12 * size, msg=name)


@pytest.mark.parametrize("name", BUILDERS)
def test_gradients_after_a_random_element_of_the_whole_group(name):
    net, gauge, batch = build(name)
    loss(net, batch).backward()
    act_(net, gauge, gauge.random(scale=0.7, seed=2, discrete=True, conditional=True))
    assert_gradients_belong(net, batch)


@pytest.mark.parametrize("name", BUILDERS)
def test_gradients_after_a_projection(name):
    net, gauge, batch = build(name)
    loss(net, batch).backward()
    project_(net, gauge, MinimalNorm(1e-3))
    assert_gradients_belong(net, batch)


KINDS = [PositiveScaling, SignedScaling, Signs, Permutations, GeneralLinear, ShiftSymmetry, WriterKernel, ReaderKernel]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_symmetry_alone(kind):
    seen = 0
    for name in ("gated", "odd", "bottleneck", "normed", "flattened"):
        net, gauge, batch = build(name)
        drawn = gauge.random(scale=0.7, seed=3, discrete=True, conditional=True)
        for s in gauge.applied:
            if isinstance(s, kind) or (type(s.group) is kind and not isinstance(s.group, Translations)):
                moved = copy.deepcopy(net)
                loss(moved, batch).backward()
                old = {n: p.grad.clone() for n, p in moved.named_parameters()}
                act_(moved, gauge, Element(((s.name, drawn.values[s.name]),)))
                assert_gradients_belong(moved, batch)
                if kind is not WriterKernel:  # a translation of a weight alone leaves its gradient as it is
                    seen += any(not torch.equal(p.grad, old[n]) for n, p in moved.named_parameters())
                else:
                    seen += 1
    assert seen


def test_an_orthogonal_group():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)).double()
    gauge = declare(net, Orthogonal(3, batch=2), {"0.weight": 0, "0.bias": 0}, {"1.weight": 1})
    batch = torch.randn(8, 4, dtype=torch.float64)
    loss(net, batch).backward()
    act_(net, gauge, gauge.random(scale=1.0, seed=1, conditional=True))
    assert_gradients_belong(net, batch)


def test_gradients_of_parameters_that_a_shift_only_reads():
    """b′ = b + t − W·c: the gradient of W turns though W stays, ∂L/∂W′ = ∂L/∂W + ∂L/∂b ⊗ c; momenta likewise."""
    net, gauge, batch = build("bottleneck")
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0, momentum=0.9)
    loss(net, batch).backward()
    optimizer.step()
    (shift,) = [s for s in gauge.applied if isinstance(s, ShiftSymmetry)]
    c = gauge.random(scale=1.0, seed=1, conditional=True).values[shift.name]
    weight, kept = net[1].weight.detach().clone(), net[1].weight.grad.clone()
    act_(net, gauge, Element(((shift.name, c),)), [optimizer])
    assert torch.equal(net[1].weight, weight)
    expected = kept + torch.outer(net[1].bias.grad, c)
    torch.testing.assert_close(net[1].weight.grad, expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(optimizer.state[net[1].weight]["momentum_buffer"], expected, rtol=1e-11, atol=1e-12)


def test_first_moments_and_gradients_do_not_mix():
    """A bias without a gradient (but with a momentum) must not lend its momentum to the gradient of its weight."""
    net, gauge, batch = build("bottleneck")
    optimizer = torch.optim.Adam(net.parameters(), lr=0.0)
    loss(net, batch).backward()
    optimizer.step()
    net[0].bias.grad = net[1].bias.grad = None
    kept = net[1].weight.grad.clone()
    (shift,) = [s for s in gauge.applied if isinstance(s, ShiftSymmetry)]
    act_(net, gauge, Element(((shift.name, gauge.random(seed=1, conditional=True).values[shift.name]),)), [optimizer])
    torch.testing.assert_close(net[1].weight.grad, kept, rtol=1e-12, atol=0)
    assert net[1].bias.grad is None


def test_second_moments_stay_under_a_shift():
    net, gauge, batch = build("bottleneck")
    optimizer = torch.optim.Adam(net.parameters(), lr=0.0)
    loss(net, batch).backward()
    optimizer.step()
    kept = [optimizer.state[p]["exp_avg_sq"].clone() for p in net.parameters()]
    (shift,) = [s for s in gauge.applied if isinstance(s, ShiftSymmetry)]
    act_(net, gauge, Element(((shift.name, gauge.random(seed=1, conditional=True).values[shift.name]),)), [optimizer])
    assert all(torch.equal(optimizer.state[p]["exp_avg_sq"], v) for p, v in zip(net.parameters(), kept, strict=True))


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(11, 4, sparse=True), nn.Linear(4, 3)

    def forward(self, ids):
        return self.out(self.table(ids).relu())


@pytest.mark.parametrize("discrete", [False, True])
def test_sparse_gradients_move_and_stay_sparse(discrete):
    net, ids = Embedded().double(), torch.tensor([[1, 2, 2], [4, 1, 9]])
    gauge = gaugefix.discover(net, (ids,))
    assert "table.weight" in {name for s in gauge.applied for name in s.parameters}
    loss(net, ids).backward()
    assert net.table.weight.grad.is_sparse
    act_(net, gauge, gauge.random(scale=1.0, seed=1, discrete=discrete, conditional=True))
    assert_gradients_belong(net, ids)


def test_parameters_without_gradients_and_frozen_ones():
    net, _, batch = build("mlp")
    net[2].weight.requires_grad_(False)
    gauge = gaugefix.discover(net, (batch,))
    assert "2.weight" not in {name for s in gauge.applied for name in s.parameters}
    loss(net, batch).backward()
    net[6].weight.grad = None
    before = net[2].weight.clone()
    act_(net, gauge, gauge.random(scale=1.0, seed=1, discrete=True, conditional=True))
    assert torch.equal(net[2].weight, before)
    assert net[6].weight.grad is None
    assert net[2].weight.grad is None
    net[6].weight.grad = torch.autograd.grad(loss(net, batch), net[6].weight)[0]
    assert_gradients_belong(net, batch)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_gradients_round_once(dtype):
    net, gauge, batch = build("mlp", dtype)
    loss(net, batch).backward()
    wide = {name: p.grad.double() for name, p in net.named_parameters()}
    element = gauge.random(scale=0.7, seed=2, conditional=True)
    act_(net, gauge, element)
    scale = element.values["0:scale"].float().double()
    expected = wide["0.bias"] / scale
    torch.testing.assert_close(net[0].bias.grad.double(), expected, rtol=1.01 * torch.finfo(dtype).eps, atol=1e-7)
