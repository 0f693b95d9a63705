"""What is attached to parameters: found wherever it is, and moved once."""

import copy
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import nn

import gaugefix
from gaugefix import act_, project_
from gaugefix.errors import SliceError, TransportError
from gaugefix.symmetry import Element
from gaugefix.transport import attached
from tests.slices.small_nets import build
from tests.transport.fingerprint import fingerprint
from tests.transport.stepped import states, stepped


def expected_state(net, gauge, element, optimizer):
    """The transported state by the plain way: a copy of model and optimizer, in a list."""
    twin = copy.deepcopy(net)
    other = torch.optim.Adam(twin.parameters())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    act_(twin, gauge, element, [other])
    return states(twin, other)


@pytest.mark.parametrize("name", ["mlp", "bottleneck"])
@pytest.mark.parametrize("way", ["generator", "twice", "wrapper", "wrapper and itself", "attribute of a wrapper"])
def test_ways_to_hand_over_an_optimizer(way, name):
    net, gauge, batch = build(name)
    optimizer = stepped(net, torch.optim.Adam(net.parameters()), batch)
    element = gauge.random(seed=1)
    expected = expected_state(net, gauge, element, optimizer)
    wrapper = LightningOptimizer(optimizer)
    optimizers = {
        "generator": (o for o in [optimizer]),
        "twice": [optimizer, optimizer],
        "wrapper": [wrapper],
        "wrapper and itself": (wrapper, optimizer),
        "attribute of a wrapper": [SimpleNamespace(optimizer=wrapper)],
    }
    act_(net, gauge, element, optimizers[way])
    assert fingerprint(states(net, optimizer)) == fingerprint(expected)


class Lookahead(torch.optim.Optimizer):
    """An optimizer around another one, with slow weights of its own: not a wrapper to look through."""

    def __init__(self, inner):
        super().__init__(inner.param_groups, {})
        self.optimizer = inner
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["slow"] = p.detach().clone()


def test_an_optimizer_with_a_state_around_another_one_is_not_looked_through():
    net, gauge, batch = build("mlp")
    optimizer = Lookahead(stepped(net, torch.optim.Adam(net.parameters()), batch))
    with pytest.raises(TransportError, match=r"got Lookahead with state \['slow'\] for '0\.weight'"):
        act_(net, gauge, gauge.random(), [optimizer])


def test_two_optimizers_may_share_a_parameter():
    net, gauge, batch = build("mlp")
    first = stepped(net, torch.optim.SGD(net.parameters(), lr=0.0, momentum=0.9), batch)
    second = stepped(net, torch.optim.Adam([*net[0].parameters()], lr=0.0), batch)
    momentum = first.state[net[0].bias]["momentum_buffer"].clone()
    average = second.state[net[0].bias]["exp_avg"].clone()
    element = gauge.random(seed=1)
    act_(net, gauge, element, [first, second])
    scale = element.values["0:scale"]
    torch.testing.assert_close(first.state[net[0].bias]["momentum_buffer"], momentum / scale)
    torch.testing.assert_close(second.state[net[0].bias]["exp_avg"], average / scale)


def test_a_parameter_without_an_optimizer_moves_all_the_same():
    net, gauge, batch = build("mlp")
    optimizer = stepped(net, torch.optim.Adam(net[0].parameters(), lr=0.0), batch)
    before, bias = net(batch), net[2].bias.detach().clone()
    element = gauge.random(seed=1)
    act_(net, gauge, element, [optimizer])
    torch.testing.assert_close(net(batch), before, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(net[2].bias.detach(), bias * element.values["2:scale"])


def test_a_foreign_optimizer_is_left_alone():
    net, gauge, batch = build("mlp")
    other = copy.deepcopy(net)
    optimizer = stepped(other, torch.optim.Adam(other.parameters()), batch)
    before = fingerprint(other, optimizer)
    act_(net, gauge, gauge.random(), [optimizer])
    assert fingerprint(other, optimizer) == before


def test_tied_parameters_move_once():
    net, gauge, batch = build("tied")
    optimizer = stepped(net, torch.optim.SGD(net.parameters(), lr=0.0, momentum=0.9), batch)
    assert "decoder.weight" not in gauge.shapes
    weight = net.encoder.weight
    old = {"weight": weight.detach().clone(), "grad": weight.grad.clone()}
    old["momentum"] = optimizer.state[weight]["momentum_buffer"].clone()
    before = net(batch)
    ((name, scale),) = gauge.random(scale=1.0, seed=1).steps
    assert gauge[name].group.coordinates == 6
    act_(net, gauge, Element(((name, scale),)), [optimizer])
    assert net.decoder.weight is weight
    torch.testing.assert_close(weight.detach(), scale[:, None] * old["weight"])
    torch.testing.assert_close(weight.grad, old["grad"] / scale[:, None])
    torch.testing.assert_close(optimizer.state[weight]["momentum_buffer"], old["momentum"] / scale[:, None])
    torch.testing.assert_close(net(batch), before, rtol=1e-12, atol=1e-13)


def test_a_tensor_with_two_names_is_refused():
    """A group of an untied model would move a tied tensor twice."""
    square = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    gauge = gaugefix.discover(square, (torch.zeros(2, 4),))
    square[4].weight = square[0].weight
    before = fingerprint(square)
    with pytest.raises(ValueError, match=r"Expected a tensor of its own for '4\.weight', got that of '0\.weight'"):
        act_(square, gauge, gauge.random())
    assert fingerprint(square) == before


def test_everything_attached_is_listed_once_with_its_kind():
    net, _, batch = build("mlp")
    optimizer = stepped(net, torch.optim.Adam(net.parameters(), amsgrad=True), batch)
    found = attached(dict(net.named_parameters()), [optimizer])
    assert found.clear == []
    assert len({id(item.tensor) for item in found.along}) == len(found.along) == 4 * len(list(net.parameters()))
    assert len({item.kind for item in found.along}) == 4
    for item in found.along:
        assert item.tensor.shape == net.get_parameter(item.parameter).shape


def test_a_second_optimizer_that_is_refused_leaves_the_first_one_alone():
    net, gauge, batch = build("mlp")
    good = stepped(net, torch.optim.Adam(net.parameters()), batch)
    bad = stepped(net, torch.optim.Adadelta(net.parameters()), batch)
    before = fingerprint(net, good, bad)
    with pytest.raises(TransportError, match="Adadelta"):
        project_(net, gauge, "minimal_norm", [good, bad])
    with pytest.raises(SliceError, match="Did you mean 'unit_norm'"):
        project_(net, gauge, "unit_morn", [good])
    assert fingerprint(net, good, bad) == before
