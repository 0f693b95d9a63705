"""Units that are zero or dead: left alone by the minimal-norm slice, no reason to fail."""

import pytest
import torch

from gaugefix import drift, project_
from gaugefix.slices import MinimalNorm
from tests.slices.small_nets import build, relative, scalings


def silence(net, incoming=(), outgoing=()):
    """Zero the incoming weights and bias of units of the first hidden layer, and the outgoing ones of others."""
    with torch.no_grad():
        net[0].weight[list(incoming)], net[0].bias[list(incoming)] = 0.0, 0.0
        net[2].weight[:, list(outgoing)] = 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_and_dead_units_stay_and_the_others_are_balanced(dtype):
    net, gauge, _ = build("mlp", dtype)
    silence(net, incoming=[0, 3], outgoing=[3, 5])
    element = project_(net, gauge, MinimalNorm(1e-6))
    scale = element.values["0:scale"]
    assert scale[[0, 3, 5]].tolist() == [1.0, 1.0, 1.0]
    assert all(bool(p.isfinite().all()) for p in net.parameters())
    alive = [1, 2, 4, 6, 7]
    incoming = net[0].weight.square().sum(1) + net[0].bias.square()
    torch.testing.assert_close(incoming[alive], net[2].weight.square().sum(0)[alive], rtol=1e-4, atol=0)


@pytest.mark.parametrize("layer", [0, 2, 4, 6])
def test_a_layer_of_zeros_is_no_reason_to_fail(layer):
    net, gauge, batch = build("mlp")
    with torch.no_grad():
        net[layer].weight.zero_()
        net[layer].bias.zero_()
    before = net(batch)
    element = project_(net, gauge, "minimal_norm")
    torch.testing.assert_close(net(batch), before, rtol=1e-13, atol=1e-14)
    beside = [name for name in (f"{layer}:scale", f"{layer - 2}:scale") if name in element.values]
    assert all(bool((element.values[name] == 1.0).all()) for name in beside)


def test_a_net_of_zeros_is_left_alone():
    net, gauge, _ = build("residual")
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    element = project_(net, gauge, "minimal_norm")
    assert all(bool((value == 1.0).all()) for _, value in element.steps)
    assert drift(net, gauge).residual == 0.0


def test_a_zero_initialised_residual_branch_is_left_alone():
    net, gauge, batch = build("residual conv")
    with torch.no_grad():
        net.n1.weight.zero_()
        net.n1.bias.zero_()
    before = net(batch)
    element = project_(net, gauge, "minimal_norm")
    assert relative(net(batch), before) < 1e-13
    (branch,) = [s.name for s in scalings(gauge) if "n1.weight" in s.parameters]
    assert bool((element.values[branch] == 1.0).all())
