"""A network in a bad gauge rounds its outputs off; in float64 a projection of it changes nothing."""

import math

import pytest
import torch
from torch import nn

import gaugefix
from gaugefix import GaugeProjection
from gaugefix.callbacks import guard
from gaugefix.callbacks.second_opinion import change_in_double
from gaugefix.groups import GeneralLinear
from gaugefix.symmetry import Element
from tests.callbacks.small_fits import CLASSES, INPUTS, Announced, data, trainer

WIDTH = INPUTS


def scrambled(spread: float) -> nn.Sequential:
    """Two linear maps with bad coordinates between them: x → G x with the condition e^spread."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(INPUTS, WIDTH), nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, CLASSES))
    gauge = gaugefix.discover(net, (torch.randn(3, INPUTS),))
    (mixing,) = (s for s in gauge.applied if isinstance(s.group, GeneralLinear))
    generator = torch.Generator().manual_seed(1)
    u, v = (torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64))[0] for _ in range(2))
    g = (u * torch.linspace(0.0, spread, WIDTH).double().exp()) @ v.mT
    net.double()
    gaugefix.act_(net, gauge, Element(((mixing.name, g[None]),)))
    return net.float()


def fit(net: nn.Module) -> GaugeProjection:
    projection = GaugeProjection(every_n_steps=100)
    trainer(projection, max_steps=1).fit(Announced(net), data())
    return projection


@pytest.mark.filterwarnings("ignore:Expected unchanged outputs")
def test_a_projection_out_of_a_bad_gauge_is_kept(monkeypatch):
    projection = fit(scrambled(12.0))
    assert (projection.projections, projection.rolled_back) == (1, 0)
    assert 0 < projection.invariance_error < 1e-6  # in float64; in float32 it is 3e-4
    monkeypatch.setattr(guard, "change_in_double", lambda *_: math.inf)
    projection = fit(scrambled(12.0))  # not in float32: 24 eps are allowed
    assert (projection.projections, projection.rolled_back) == (0, 1)


def moved(net: nn.Module, change) -> dict[int, torch.Tensor]:
    before = {id(p): p.detach().clone() for p in net.parameters()}
    with torch.no_grad():
        change(net)
    return before


@pytest.mark.parametrize("size", [1e-3, 1e-7])
def test_what_changes_the_function_is_seen(size):
    net, x = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)), torch.randn(5, 4)
    before = moved(net, lambda n: n[0].weight.mul_(1 + size))
    assert 0.1 * size < change_in_double(net, (x,), {}, before) < 2 * size


def test_the_model_is_left_as_it_is():
    net, x = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).train(), torch.randn(5, 4)
    before = moved(net, lambda n: n[0].weight.mul_(2))
    state = {name: t.clone() for name, t in net.state_dict().items()}
    change_in_double(net, (x,), {}, before)
    assert all(torch.equal(state[name], t) and t.dtype == state[name].dtype for name, t in net.state_dict().items())
    assert net.training
    assert net[1].training


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids, scale=None):
        return self.head(self.tokens(ids)) * scale


def test_ties_hold_and_keywords_count():
    net, ids = Tied(), torch.arange(7)
    before = moved(net, lambda n: n.tokens.weight.neg_())  # the function of the tied weight is even
    assert change_in_double(net, (ids,), {"scale": torch.ones(7)}, before) < 1e-15


class Single(nn.Module):
    """Reads a table in float32 that is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.o, self.table = nn.Linear(4, 3), torch.randn(4, 4)

    def forward(self, x):
        return self.o(x @ self.table)


def test_a_model_that_refuses_float64_has_no_second_opinion():
    net = Single()
    before = moved(net, lambda n: None)
    assert change_in_double(net, (torch.randn(2, 4),), {}, before) == math.inf
