"""Shifts and kernels on the minimal-norm slice: orthogonality to every direction along the orbit."""

import copy

import pytest
import torch
from torch import nn

import gaugefix
from gaugefix import act_, drift, project_
from gaugefix.groups import Translations
from gaugefix.slices import MinimalNorm
from gaugefix.symmetry import ReaderKernel, ShiftSymmetry, WriterKernel
from tests.slices.small_nets import build, normed, relative

TIGHT = MinimalNorm(tolerance=1e-10)


def translations(gauge):
    return [s for s in gauge.applied if isinstance(s.group, Translations)]


def at_least_norm(gauge):
    """All but shifts of a norm that reader kernels read: those go into the biases of the readers."""
    read = {s.shift for s in gauge.applied if isinstance(s, ReaderKernel)}
    return [s for s in translations(gauge) if not (isinstance(s, ShiftSymmetry) and read & set(s.parameters))]


def tangents(net, gauge):
    """Rows ∂θ/∂v of shifts and kernels at least norm, over parameters (statistics of batch norms do not count)."""
    tensors = {name: tensor.detach() for name, tensor in gauge.check(net).items()}
    counted = [name for name, _ in net.named_parameters()]
    theta = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
    rows = []
    for s in at_least_norm(gauge):

        def moved(v, s=s):
            new = {**dict(net.named_parameters()), **s.act(tensors, v)}
            return torch.cat([new[name].reshape(-1) for name in counted])

        origin = torch.zeros(s.group.coordinates, dtype=torch.float64)
        rows.append(torch.autograd.functional.jacobian(moved, origin).T)
    return torch.cat(rows), theta


def alignment(net, gauge):
    """max |cos| of the angle between θ and a direction along the orbit."""
    rows, theta = tangents(net, gauge)
    return float(((rows @ theta) / (rows.norm(dim=1) * theta.norm())).abs().max())


@pytest.mark.parametrize("name", ["normed", "bottleneck", "flattened"])
def test_every_direction_along_the_orbit_is_orthogonal(name):
    net, gauge, batch = build(name)
    gauge = gauge.select(lambda s: s in translations(gauge))
    assert alignment(net, gauge) > 0.01
    before = net(batch)
    project_(net, gauge, TIGHT)
    assert alignment(net, gauge) < 1e-9
    assert relative(net(batch), before) < 1e-13
    assert drift(net, gauge, TIGHT).total < 1e-9


def test_the_shift_of_a_norm_goes_into_the_biases_of_its_readers():
    """Over β and the kernels together the least norm has several minima; without β it has one."""
    net, gauge, batch = build("normed")
    weight, bias, shift = (p.detach().clone() for p in (net[2].weight, net[2].bias, net[1].bias))
    before = net(batch)
    project_(net, gauge.select(lambda s: isinstance(s, (ShiftSymmetry, ReaderKernel))), TIGHT)
    torch.testing.assert_close(net[1].bias.detach(), torch.zeros_like(shift), rtol=0, atol=1e-12)
    torch.testing.assert_close(net[2].bias.detach(), bias + weight @ shift, rtol=0, atol=1e-12)
    n = net[1].weight.detach().reciprocal()
    torch.testing.assert_close(net[2].weight.detach() @ n, torch.zeros_like(bias), rtol=0, atol=1e-12)
    assert relative(net(batch), before) < 1e-13


def test_all_kinds_occur():
    _, gauge, _ = build("normed")
    assert {type(s) for s in translations(gauge)} == {ShiftSymmetry, WriterKernel, ReaderKernel}


def test_a_writer_kernel_centres_its_weight():
    """W ← (1 − 11ᵀ/d) W."""
    net, gauge, _ = build("normed")
    weight = net[0].weight.detach().clone()
    project_(net, gauge.select(lambda s: isinstance(s, WriterKernel)), TIGHT)
    torch.testing.assert_close(net[0].weight.detach(), weight - weight.mean(0), rtol=0, atol=1e-12)


def test_a_reader_kernel_solves_its_least_squares():
    """min_u ‖W + u⊗n‖² + ‖b − uκ‖², n = 1/γ, κ = Σβ/γ: u = (κb − Wn)/(n·n + κ²)."""
    net, gauge, _ = build("normed")
    n = net[1].weight.detach().reciprocal()
    kappa = (net[1].bias.detach() * n).sum()
    weight, bias = net[2].weight.detach().clone(), net[2].bias.detach().clone()
    u = (kappa * bias - weight @ n) / (n @ n + kappa**2)
    project_(net, gauge.select(lambda s: isinstance(s, ReaderKernel)), TIGHT)
    torch.testing.assert_close(net[2].weight.detach(), weight + torch.outer(u, n), rtol=0, atol=1e-12)
    torch.testing.assert_close(net[2].bias.detach(), bias - u * kappa, rtol=0, atol=1e-12)


def test_a_bias_in_front_of_a_batch_norm_vanishes_and_the_running_mean_follows():
    net, gauge, batch = build("flattened")
    bias, mean = net[0].bias.detach().clone(), net[1].running_mean.clone()
    before = net.eval()(batch)
    project_(net, gauge.select(lambda s: isinstance(s, ShiftSymmetry)), TIGHT)
    torch.testing.assert_close(net[0].bias.detach(), torch.zeros_like(bias), rtol=0, atol=1e-12)
    torch.testing.assert_close(net[1].running_mean, mean - bias, rtol=0, atol=1e-12)
    assert relative(net(batch), before) < 1e-13


def test_two_biases_in_a_row_share_the_work():
    """b₁ += c, b₂ −= W₂c, least squares: c = −(1 + W₂ᵀW₂)⁻¹(b₁ − W₂ᵀb₂)."""
    net, gauge, _ = build("bottleneck")
    weight, first, second = (p.detach().clone() for p in (net[1].weight, net[0].bias, net[1].bias))
    c = torch.linalg.solve(torch.eye(3).double() + weight.T @ weight, weight.T @ second - first)
    project_(net, gauge.select(lambda s: isinstance(s, ShiftSymmetry)), TIGHT)
    torch.testing.assert_close(net[0].bias.detach(), first + c, rtol=0, atol=1e-12)
    torch.testing.assert_close(net[1].bias.detach(), second - weight @ c, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["normed", "bottleneck"])
def test_the_projected_point_is_the_same_from_everywhere_on_the_orbit(name):
    net, gauge, _ = build(name)
    gauge = gauge.select(lambda s: s in translations(gauge))
    other = copy.deepcopy(net)
    act_(other, gauge, gauge.random(scale=1.0, seed=7))
    for m in (net, other):
        project_(m, gauge, TIGHT)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-9)


def test_scalings_shifts_and_kernels_together_reach_the_slice():
    torch.manual_seed(0)
    net = normed(12).double()
    with torch.no_grad():
        net[1].weight.uniform_(0.5, 1.5)
        net[1].bias.uniform_(-0.5, 0.5)
    batch = torch.randn(16, 4, dtype=torch.float64)
    gauge, before = gaugefix.discover(net, (batch,)), net(batch)
    slice = MinimalNorm(tolerance=1e-6)
    project_(net, gauge, slice)
    assert relative(net(batch), before) < 1e-13
    assert alignment(net, gauge) < 1e-5
    assert drift(net, gauge, slice).residual < 1e-5
    incoming = net[2].weight.square().sum(1) + net[2].bias.square()
    torch.testing.assert_close(incoming, net[4].weight.square().sum(0), rtol=1e-4, atol=0)
    gains = net[1].weight.square() + net[1].bias.square()
    torch.testing.assert_close(gains, net[2].weight.square().sum(0), rtol=1e-4, atol=0)


def test_a_net_without_biases_has_no_shift():
    net = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False))
    gauge = gaugefix.discover(net, (torch.zeros(2, 4),))
    assert translations(gauge) == []
