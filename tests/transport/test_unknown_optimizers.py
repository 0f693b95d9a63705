"""What happens to an optimizer, or an entry of its state, that has no law."""

import pytest
import torch

from gaugefix import act_, project_
from gaugefix.errors import TransportError
from gaugefix.symmetry import Element
from gaugefix.transport import LAWS
from tests.slices.small_nets import build
from tests.transport.fingerprint import fingerprint
from tests.transport.stepped import states, stepped


class Elastic(torch.optim.Adam):
    """An Adam that also keeps an anchor per parameter."""

    def step(self, closure=None):
        result = super().step(closure)
        for p, state in self.state.items():
            state.setdefault("anchor", p.detach().clone())
        return result


class Rows(torch.optim.SGD):
    """An SGD whose momentum has lost its shape, as that of a sharded or factored optimizer."""

    def step(self, closure=None):
        result = super().step(closure)
        for state in self.state.values():
            state["momentum_buffer"] = state["momentum_buffer"].flatten()
        return result


class Counting(torch.optim.Adam):
    """An Adam with one number more."""

    def step(self, closure=None):
        result = super().step(closure)
        for state in self.state.values():
            state["skipped"] = torch.zeros(())
        return result


def unknown_optimizers(net):
    return {
        "Adadelta": torch.optim.Adadelta(net.parameters()),
        "Adafactor": torch.optim.Adafactor(net.parameters()),
        "Rprop": torch.optim.Rprop(net.parameters()),
        "LBFGS": torch.optim.LBFGS(net.parameters(), max_iter=2),
    }


@pytest.mark.parametrize("name", ["Adadelta", "Adafactor", "Rprop", "LBFGS"])
def test_an_optimizer_without_laws_is_refused_by_name_with_the_mend(name):
    net, gauge, batch = build("mlp")
    optimizer = stepped(net, unknown_optimizers(net)[name], batch)
    before = fingerprint(net, optimizer)
    message = (
        rf"Expected an optimizer with known laws of transport, got {name} with state \[.*\] for '0\.weight'\. Use one "
        rf"of {', '.join(sorted(LAWS))}; or pass unknown_optimizer='reset' to clear the state of the parameters that "
        r"move \('ignore' to leave it\), or add a row with gaugefix\.transport\.register_optimizer"
    )
    for action in (
        lambda: act_(net, gauge, gauge.random(), [optimizer]),
        lambda: project_(net, gauge, "minimal_norm", [optimizer]),
    ):
        with pytest.raises(TransportError, match=message):
            action()
        assert fingerprint(net, optimizer) == before


@pytest.mark.parametrize("name", ["Adadelta", "Adafactor", "Rprop"])
def test_reset_clears_the_state_of_what_moves_and_no_other(name):
    net, gauge, batch = build("mlp")
    optimizer = stepped(net, unknown_optimizers(net)[name], batch)
    before = states(net, optimizer)
    element = Element((("0:scale", gauge.random().values["0:scale"]),))
    act_(net, gauge, element, [optimizer], unknown_optimizer="reset")
    after = states(net, optimizer)
    moved = set(gauge["0:scale"].parameters)
    assert moved == {"0.weight", "0.bias", "2.weight"}
    assert all(not after[parameter] for parameter in moved)
    assert all(fingerprint(after[p]) == fingerprint(before[p]) and after[p] for p in after if p not in moved)
    stepped(net, optimizer, batch)  # and it goes on


def test_a_state_over_all_parameters_at_once_is_seen_wherever_it_is_kept():
    """LBFGS keeps one state for all, under the first parameter: it concerns whatever moves."""
    net, gauge, batch = build("mlp")
    optimizer = stepped(net, torch.optim.LBFGS(net.parameters(), max_iter=3), batch)
    element = Element((("4:scale", gauge.random().values["4:scale"]),))
    assert "0.weight" not in gauge["4:scale"].parameters
    with pytest.raises(TransportError, match=r"got LBFGS with state \[.*'old_dirs'.*\] for 'all parameters'"):
        act_(net, gauge, element, [optimizer])
    act_(net, gauge, element, [optimizer], unknown_optimizer="reset")
    assert states(net, optimizer)["0.weight"] == {}
    stepped(net, optimizer, batch)


def test_an_optimizer_of_other_parameters_is_not_asked():
    net, gauge, batch = build("mlp")
    optimizer = stepped(net, torch.optim.Adadelta([net[6].bias]), batch)
    before = fingerprint(optimizer)
    act_(net, gauge, gauge.random(), [optimizer])
    assert fingerprint(optimizer) == before


@pytest.mark.parametrize("name", ["Adadelta", "LBFGS"])
def test_ignore_leaves_the_state_in_the_old_gauge(name):
    net, gauge, batch = build("mlp")
    optimizer = stepped(net, unknown_optimizers(net)[name], batch)
    state, parameters = fingerprint(optimizer), fingerprint(net)
    act_(net, gauge, gauge.random(), [optimizer], unknown_optimizer="ignore")
    assert fingerprint(optimizer) == state
    assert fingerprint(net) != parameters


def test_an_optimizer_that_has_not_stepped_has_nothing_to_move():
    net, gauge, _ = build("mlp")
    for optimizer in unknown_optimizers(net).values():
        act_(net, gauge, gauge.random(), [optimizer])
        assert not optimizer.state


@pytest.mark.parametrize(("kind", "entry"), [(Elastic, "'anchor' of shape"), (Rows, "'momentum_buffer' of shape")])
def test_an_entry_that_the_laws_do_not_know_is_refused(kind, entry):
    net, gauge, batch = build("mlp")
    options = {"lr": 0.1, "momentum": 0.9} if kind is Rows else {}
    optimizer = stepped(net, kind(net.parameters(), **options), batch)
    before = fingerprint(net, optimizer)
    message = rf"Expected known state entries .* for {kind.__name__}, got {entry} .* for '0\.weight'\. Pass unknown_opt"
    with pytest.raises(TransportError, match=message):
        act_(net, gauge, gauge.random(), [optimizer])
    assert fingerprint(net, optimizer) == before
    act_(net, gauge, gauge.random(), [optimizer], unknown_optimizer="reset")
    assert not states(net, optimizer)["0.weight"]
    assert states(net, optimizer)["6.bias"]  # the output bias does not move


def test_one_more_number_is_a_counter():
    net, gauge, batch = build("mlp")
    optimizer = stepped(net, Counting(net.parameters()), batch)
    act_(net, gauge, gauge.random(), [optimizer])
    assert float(optimizer.state[net[0].weight]["skipped"]) == 0.0


@pytest.mark.parametrize("policy", ["errror", "", None])
def test_an_unknown_policy_is_refused_and_nothing_changes(policy):
    net, gauge, batch = build("mlp")
    optimizer = stepped(net, torch.optim.Adam(net.parameters()), batch)
    before = fingerprint(net, optimizer)
    message = f"Expected 'error', 'reset' or 'ignore' for unknown_optimizer, got '{policy}'. Choose one of them"
    with pytest.raises(TransportError, match=message):
        project_(net, gauge, "minimal_norm", [optimizer], unknown_optimizer=policy)
    assert fingerprint(net, optimizer) == before


def test_something_else_than_an_optimizer_is_refused():
    net, gauge, _ = build("mlp")
    scheduler = torch.optim.lr_scheduler.StepLR(torch.optim.SGD(net.parameters(), lr=0.1), 1)
    with pytest.raises(TransportError, match=r"Expected a torch.optim.Optimizer in optimizers, got Sequential\. Pass"):
        act_(net, gauge, gauge.random(), [net])
    with pytest.raises(TransportError, match=r"Expected an iterable of optimizers, got one SGD\. Put it into a list"):
        act_(net, gauge, gauge.random(), scheduler.optimizer)
