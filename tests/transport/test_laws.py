"""Every row of the table of laws: transported state is the state that the new gauge would have built itself."""

import copy

import pytest
import torch
from torch import nn

from gaugefix import act_, declare
from gaugefix.errors import TransportError
from gaugefix.groups import GeneralLinear, Orthogonal
from gaugefix.symmetry import GRADIENT, SQUARED_GRADIENT, Element
from gaugefix.transport import INVARIANT, LAWS, RATIO, register_optimizer
from tests.slices.small_nets import build, loss

TINY = 1e-200  # far below every root of a squared gradient, so that nothing depends on it; dead units need it
SETTINGS = {
    "SGD": [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.8, "dampening": 0.1}],
    "Adam": [{}, {"amsgrad": True}],
    "AdamW": [{"weight_decay": 0.0}, {"weight_decay": 0.0, "amsgrad": True}],
    "NAdam": [{}],
    "RAdam": [{}],
    "Adagrad": [{}],
    "RMSprop": [{"eps": TINY}, {"eps": TINY, "momentum": 0.9}, {"eps": TINY, "momentum": 0.9, "centered": True}],
}
OPTIMIZERS = [pytest.param(name, options, id=f"{name}-{options}") for name in SETTINGS for options in SETTINGS[name]]
over_optimizers = pytest.mark.parametrize(("name", "options"), OPTIMIZERS)


def gather(net, optimizer, batches):
    """Let the optimizer see gradients without moving (its learning rate is 0)."""
    for batch in batches:
        optimizer.zero_grad()
        loss(net, batch).backward()
        optimizer.step()
    return optimizer


def make(name, net, options):
    return getattr(torch.optim, name)(net.parameters(), lr=0.0, **options)


def test_every_row_is_tested():
    assert {*SETTINGS, "Muon"} == set(LAWS)  # Muon: test_muon.py


@over_optimizers
@pytest.mark.parametrize("net_name", ["mlp", "gated", "squared", "residual conv", "odd"])
def test_state_equals_the_state_built_in_the_new_gauge(name, options, net_name):
    net, gauge, _ = build(net_name)
    batches = [build(net_name, seed=seed)[2] for seed in range(5)]
    element = gauge.random(scale=1.0, seed=1, discrete=True)  # scalings, signs and permutations
    other = copy.deepcopy(net)
    act_(other, gauge, element)
    moved = gather(net, make(name, net, options), batches)
    act_(net, gauge, element, [moved])
    built = gather(other, make(name, other, options), batches)
    for (parameter, p), q in zip(net.named_parameters(), other.parameters(), strict=True):
        assert moved.state[p].keys() == built.state[q].keys()
        for entry, expected in built.state[q].items():
            if isinstance(expected, torch.Tensor):
                size = float(expected.abs().max())
                torch.testing.assert_close(
                    moved.state[p][entry], expected, rtol=1e-9, atol=1e-12 * size, msg=f"{entry} of {parameter}"
                )


@over_optimizers
def test_counters_and_schedules_stay(name, options):
    net, gauge, batch = build("mlp")
    optimizer = gather(net, make(name, net, options), [batch] * 3)
    invariant = {entry for entry, law in LAWS[name].items() if law == INVARIANT}
    kept = {(p, e): v.clone() for p, s in optimizer.state.items() for e, v in s.items() if e in invariant}
    assert kept or name == "SGD"
    act_(net, gauge, gauge.random(scale=1.0), [optimizer])
    assert all(torch.equal(optimizer.state[p][entry], value) for (p, entry), value in kept.items())


def test_averaged_gradients_are_exact_under_matrices():
    net, gauge, _ = build("bottleneck")
    gauge = gauge.select(lambda s: isinstance(s.group, GeneralLinear))
    batches = [build("bottleneck", seed=seed)[2] for seed in range(5)]
    other, element = copy.deepcopy(net), gauge.random(scale=1.0, seed=1)
    act_(other, gauge, element)
    for name in ("SGD", "Adam"):
        options = {"momentum": 0.9} if name == "SGD" else {}
        moved = gather(net, make(name, net, options), batches)
        twin = copy.deepcopy(net)
        moved_twin = make(name, twin, options)
        moved_twin.load_state_dict(copy.deepcopy(moved.state_dict()))
        act_(twin, gauge, element, [moved_twin])
        built = gather(other, make(name, other, options), batches)
        entry = "momentum_buffer" if name == "SGD" else "exp_avg"
        for p, q in zip(twin.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(moved_twin.state[p][entry], built.state[q][entry], rtol=1e-9, atol=1e-11)


def linear_pair(group):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    return net, declare(net, group, {"0.weight": 0, "0.bias": 0}, {"1.weight": 1}), torch.randn(9, 3).double()


def test_squared_gradients_move_by_the_elementwise_square_under_matrices():
    """Exact for uncorrelated entries: E[(Mg)_i²] = Σ_j M_ij² E[g_j²], M = g⁻ᵀ for vectors and g for covectors."""
    net, gauge, batch = linear_pair(GeneralLinear(4))
    optimizer = gather(net, make("Adam", net, {"amsgrad": True}), [batch] * 3)
    ((name, g),) = gauge.random(scale=1.0, seed=2).steps
    entries = ("exp_avg_sq", "max_exp_avg_sq")
    before = {(p, e): optimizer.state[p][e].clone() for p in net.parameters() for e in entries}
    act_(net, gauge, Element(((name, g),)), [optimizer])
    vector, covector = torch.linalg.inv(g[0]).T.square(), g[0].square()
    for e in entries:
        new = [optimizer.state[p][e] for p in net.parameters()]
        old = [before[p, e] for p in net.parameters()]
        torch.testing.assert_close(new[0], vector @ old[0], rtol=1e-12, atol=0)
        torch.testing.assert_close(new[1], vector @ old[1], rtol=1e-12, atol=0)
        torch.testing.assert_close(new[2], old[2] @ covector.T, rtol=1e-12, atol=0)
        torch.testing.assert_close(new[3], old[3], rtol=0, atol=0)
        assert all(bool((value >= 0).all()) for value in new)


@pytest.mark.parametrize("kind", [GeneralLinear, Orthogonal])
def test_ratios_move_by_the_orthogonal_factor(kind):
    """buf = Σ g/√v: of g = O·P only O remains, as only the sign remains of a scale."""
    net, gauge, batch = linear_pair(kind(4))
    optimizer = gather(net, make("RMSprop", net, {"eps": TINY, "momentum": 0.9}), [batch] * 3)
    ((name, g),) = gauge.random(scale=1.0, seed=2).steps
    values, vectors = torch.linalg.eigh(g[0].T @ g[0])
    rotation = g[0] @ vectors @ torch.diag(values.rsqrt()) @ vectors.T
    before = [optimizer.state[p]["momentum_buffer"].clone() for p in net.parameters()]
    act_(net, gauge, Element(((name, g),)), [optimizer])
    after = [optimizer.state[p]["momentum_buffer"] for p in net.parameters()]
    torch.testing.assert_close(after[0], rotation @ before[0], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(after[1], rotation @ before[1], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(after[2], before[2] @ rotation.T, rtol=1e-9, atol=1e-11)
    assert torch.equal(after[3], before[3])


def test_a_subclass_has_the_laws_of_its_base():
    class Mine(torch.optim.Adam):
        pass

    net, gauge, batch = build("mlp")
    optimizer = gather(net, Mine(net.parameters(), lr=0.0), [batch])
    before = optimizer.state[net[0].bias]["exp_avg"].clone()
    element = gauge.random(seed=1)
    act_(net, gauge, element, [optimizer])
    torch.testing.assert_close(optimizer.state[net[0].bias]["exp_avg"], before / element.values["0:scale"])


class Signed(torch.optim.Optimizer):
    """An optimizer of somebody else, with a momentum and a count."""

    def __init__(self, params):
        super().__init__(params, {})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                state.setdefault("drift", torch.zeros_like(p)).add_(p.grad)
                state["count"] = state.get("count", torch.zeros(())) + 1


def test_a_registered_optimizer_moves_by_its_laws(monkeypatch):
    monkeypatch.setattr("gaugefix.transport.laws.LAWS", table := dict(LAWS))
    monkeypatch.setattr("gaugefix.transport.attachments.LAWS", table)
    net, gauge, batch = build("mlp")
    optimizer = gather(net, Signed(net.parameters()), [batch])
    element = gauge.random(seed=1)
    with pytest.raises(TransportError, match="Expected an optimizer with known laws of transport, got Signed"):
        act_(net, gauge, element, [optimizer])
    register_optimizer("Signed", {"drift": GRADIENT, "count": INVARIANT})
    before = optimizer.state[net[0].bias]["drift"].clone()
    act_(net, gauge, element, [optimizer])
    torch.testing.assert_close(optimizer.state[net[0].bias]["drift"], before / element.values["0:scale"])
    assert float(optimizer.state[net[0].bias]["count"]) == 1


def test_an_optimizer_is_registered_once():
    with pytest.raises(TransportError, match="Expected an optimizer without laws, got 'Adam', which has them"):
        register_optimizer("Adam", {"exp_avg": GRADIENT})
    assert LAWS["Adam"]["exp_avg_sq"] == SQUARED_GRADIENT


def test_a_law_that_does_not_exist_is_refused():
    with pytest.raises(TransportError, match=r"Expected a law for entry 'drift' of Signed, got 3\. Use GRADIENT"):
        register_optimizer("Signed", {"drift": 3})
    assert "Signed" not in LAWS
    assert len({GRADIENT, SQUARED_GRADIENT, RATIO, INVARIANT}) == 4
