"""Whatever is refused is refused before anything was changed."""

import pytest
import torch
from torch import nn

import gaugefix
from gaugefix import act_
from gaugefix.errors import NonFiniteError, SymmetryError, TransportError
from gaugefix.symmetry import Element
from tests.slices.small_nets import build, loss, mlp
from tests.transport.fingerprint import fingerprint
from tests.transport.trained_copies import trained_copies


def foreign():
    """A model with the same names and other shapes, and its group."""
    net = mlp(5, 9, 7, 6, 3).double()
    return net, gaugefix.discover(net, (torch.zeros(2, 5, dtype=torch.float64),))


def one_value(gauge, change):
    """An element with one step changed."""
    element = gauge.random(seed=1, conditional=True)
    (name, value), *rest = element.steps
    return Element((*rest, (name, change(value))))


def with_nan(value):
    value = value.clone()
    value[0] = torch.nan
    return value


REFUSED = {
    "the group of another model": (
        lambda n, g, o, a: act_(n, foreign()[1], g.random(conditional=True), [o], averaged=[a]),
        SymmetryError,
        r"Expected shape \(9,\) for '0\.bias', got \(8,\)\. This gauge group belongs to another model: discover it",
    ),
    "the element of another group": (
        lambda n, g, o, a: act_(n, g, foreign()[1].random(conditional=True), [o], averaged=[a]),
        SymmetryError,
        r"Expected an element of shape \(8,\) for '0:scale', got \(9,\)\. It belongs to another group: draw or solve",
    ),
    "a step that the group does not know": (
        lambda n, g, o, a: act_(
            n, g, Element((*g.random(conditional=True).steps, ("0:scael", torch.ones(8)))), [o], averaged=[a]
        ),
        SymmetryError,
        r"Expected the name of a symmetry, got '0:scael'\. Did you mean '0:scale'\?",
    ),
    "an element with NaN": (
        lambda n, g, o, a: act_(n, g, one_value(g, with_nan), [o], averaged=[a]),
        NonFiniteError,
        r"Expected a finite element for '0:scale', got NaN or infinity\. Nothing was changed; check .* 0\.weight, 0",
    ),
    "an infinite element": (
        lambda n, g, o, a: act_(n, g, one_value(g, lambda v: v / 0.0), [o], averaged=[a]),
        NonFiniteError,
        "Expected a finite element for '0:scale'",
    ),
    "a copy of another model": (
        lambda n, g, o, a: act_(n, g, g.random(conditional=True), [o], averaged=[a, foreign()[0]]),
        SymmetryError,
        r"Expected shape \(8,\) for '0\.bias', got \(9,\)",
    ),
    "a copy without the parameters": (
        lambda n, g, o, a: act_(n, g, g.random(conditional=True), [o], averaged=[a, nn.Linear(2, 2)]),
        SymmetryError,
        r"Expected a parameter '0\.bias' in the model, got none\. This gauge group belongs to another model",
    ),
    "a policy that does not exist": (
        lambda n, g, o, a: act_(n, g, g.random(conditional=True), [o], averaged=[a], unknown_optimizer="skip"),
        TransportError,
        "Expected 'error', 'reset' or 'ignore' for unknown_optimizer, got 'skip'",
    ),
    "something that is no optimizer": (
        lambda n, g, o, a: act_(n, g, g.random(conditional=True), [o, "adam"], averaged=[a]),
        TransportError,
        r"Expected a torch\.optim\.Optimizer in optimizers, got str",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_whatever_is_refused_leaves_every_bit(case):
    net, gauge, batch, _, average = trained_copies("mlp")
    optimizer = torch.optim.Adam(net.parameters(), amsgrad=True)
    loss(net, batch).backward()
    optimizer.step()
    before = fingerprint(net, optimizer, average)
    action, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        action(net, gauge, optimizer, average)
    assert fingerprint(net, optimizer, average) == before


@pytest.mark.parametrize("name", ["bottleneck", "normed"])
def test_a_refusal_on_the_general_path_leaves_every_bit(name):
    net, gauge, batch = build(name)
    loss(net, batch).backward()
    before = fingerprint(net)
    element = gauge.random(seed=1, conditional=True)
    (last, value) = element.steps[-1]
    with pytest.raises(NonFiniteError, match=f"Expected a finite element for '{last}'"):
        act_(net, gauge, Element((*element.steps[:-1], (last, value * torch.inf))))
    assert fingerprint(net) == before


def test_a_singular_matrix_is_refused_before_anything_moves():
    net, gauge, _ = build("bottleneck")
    before = fingerprint(net)
    element = Element(
        (("1:scale", gauge.random(conditional=True).values["1:scale"]), ("0:mixing", torch.zeros(1, 3, 3).double()))
    )
    with pytest.raises(RuntimeError, match="singular"):
        act_(net, gauge, element)
    assert fingerprint(net) == before
