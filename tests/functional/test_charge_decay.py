"""The law of decay: which charges have one, and that it is exact where gradients do not interfere."""

import copy
import math

import pytest
import torch
from torch import nn

import gaugefix
from gaugefix.functional import noether_charge
from gaugefix.functional.charge_decay import charge_decay
from gaugefix.symmetry import WriterKernel
from tests.slices.attention_nets import any_net

NETS = ["mlp", "flattened", "bottleneck", "normed", "like GPT-2", "like Llama"]


def exponents(net, value):
    return {id(p): value for p in net.parameters()}


@pytest.mark.parametrize("name", NETS)
def test_scaling_all_parameters_contracts_charges_by_the_law(name):
    """Weight decay without gradients: θ → e^(−s)θ."""
    net, gauge, _ = any_net(name)
    before = noether_charge(net, gauge)
    decay = charge_decay(net, gauge, exponents(net, 0.2), before)
    assert decay.factors
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(math.exp(-0.2))
    after = noether_charge(net, gauge)
    for key, factor in decay.factors.items():
        torch.testing.assert_close(after[key], factor * before[key], rtol=1e-10, atol=1e-12)
        assert factor == pytest.approx(math.exp(-0.2 if isinstance(gauge[key], WriterKernel) else -0.4))
    assert not set(decay.factors) & set(decay.lawless)
    assert set(decay.factors) | set(decay.lawless) == set(before)


def test_both_kinds_of_charge_occur():
    net, gauge, _ = any_net("normed")
    factors = charge_decay(net, gauge, exponents(net, 0.5), noether_charge(net, gauge)).factors.values()
    assert {round(f, 9) for f in factors} == {round(math.exp(-0.5), 9), round(math.exp(-1.0), 9)}


def test_the_reason_is_named_where_there_is_no_law():
    net, gauge, _ = any_net("one hidden layer")
    names = noether_charge(net, gauge)
    some = exponents(net, 0.1)
    frozen = {key: value for key, value in some.items() if key != id(net[0].bias)}
    assert charge_decay(net, gauge, frozen, names).lawless == {
        "0:scale": "'0.bias' is not trained by torch's SGD, and charges are conserved by no other rule"
    }
    mixed = {**some, id(net[2].weight): 0.2}
    assert "different weight decays" in charge_decay(net, gauge, mixed, names).lawless["0:scale"]
    apart = {**some, id(net[2].bias): 0.2}  # moved by no symmetry
    assert charge_decay(net, gauge, apart, names).factors == {"0:scale": pytest.approx(math.exp(-0.2))}


def test_a_gain_of_one_plus_a_parameter_has_no_law():
    class Gained(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 3)
            self.gain = nn.Parameter(torch.randn(5))

        def forward(self, x):
            return self.b(self.a(x).relu() * (1 + self.gain))

    net = Gained().double()
    gauge = gaugefix.discover(net, (torch.randn(3, 4).double(),))
    names = noether_charge(net, gauge)
    lawless = charge_decay(net, gauge, exponents(net, 0.1), names).lawless
    assert lawless
    assert all("'gain' enters as 1 + the parameter" in reason for reason in lawless.values())


@pytest.mark.parametrize("name", ["mlp", "bottleneck"])
def test_what_decay_leaves_over_is_the_charge_of_the_gradients(name):
    """q ← (1 − lr·wd)²·q + lr²·q(g), to rounding, over many large steps: there is no other source."""
    net, gauge, batch = any_net(name)
    lr, decay, steps = 0.02, 0.5, 50
    optimizer = torch.optim.SGD(net.parameters(), lr, weight_decay=decay)
    expected, left = noether_charge(net, gauge), (1 - lr * decay) ** 2
    start = {key: charge.clone() for key, charge in expected.items()}
    for _ in range(steps):
        optimizer.zero_grad()
        net(batch).tanh().square().sum().backward()
        slope = copy.deepcopy(net)
        with torch.no_grad():
            for parameter, trained in zip(slope.parameters(), net.parameters(), strict=True):
                parameter.copy_(trained.grad)
        made = noether_charge(slope, gauge)
        expected = {key: left * charge + lr**2 * made[key] for key, charge in expected.items()}
        optimizer.step()
    for key, charge in noether_charge(net, gauge).items():
        torch.testing.assert_close(charge, expected[key], rtol=1e-8, atol=1e-9)
        assert not torch.allclose(charge, left**steps * start[key], rtol=1e-2, atol=1e-4)
