"""Errors and warnings, by their wording."""

import warnings

import pytest
import torch
from torch import nn

from gaugefix import discover
from gaugefix.errors import DiscoveryError, NoEffectWarning, SymmetryError
from tests.discovery.architectures import chain, rows


class Branching(nn.Module):
    """Which way it goes depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if x.sum().item() > 0 else x


def test_model_that_cannot_be_traced():
    with pytest.raises(DiscoveryError) as error:
        discover(Branching(), rows(4))
    text = str(error.value)
    assert text.startswith("Expected a model that torch.export can trace for Branching, got ")
    assert "Analyse a submodule that can be traced" in text
    assert "gaugefix.declare" in text
    assert error.value.__cause__ is not None


def test_example_that_does_not_fit():
    with pytest.raises(DiscoveryError, match=r"Expected a model that torch.export can trace for Linear, got "):
        discover(nn.Linear(4, 4), rows(5))


def test_model_without_symmetry_warns_once():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gauge = discover(nn.Linear(4, 3), rows(4))
    assert [w.category for w in caught] == [NoEffectWarning]
    assert str(caught[0].message) == (
        "gaugefix found no symmetry in Linear: there is nothing to do. print(gauge) names what blocks them."
    )
    assert caught[0].filename == __file__  # the line that asked
    assert len(gauge) == 0
    assert gauge.dimension == 0
    assert gauge.random().steps == ()


def test_model_with_symmetry_warns_of_nothing():
    discover(chain(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), rows(4))


class TestAnotherModel:
    gauge = discover(chain(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), rows(4))

    def test_missing_parameter(self):
        with pytest.raises(SymmetryError) as error:
            self.gauge.check(chain(nn.Linear(4, 5), nn.ReLU()))
        assert str(error.value) == (
            "Expected a parameter '2.weight' in the model, got none. This gauge group belongs to another model: "
            "discover it again."
        )

    def test_another_shape(self):
        with pytest.raises(
            SymmetryError, match=r"Expected shape \(5,\) for '0.bias', got \(6,\)\. This gauge group bel"
        ):
            self.gauge.check(chain(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)))

    def test_a_copy_fits(self):
        self.gauge.check(chain(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))

    def test_misspelt_symmetry(self):
        with pytest.raises(SymmetryError) as error:
            self.gauge["0:scales"]
        assert str(error.value) == (
            "Expected the name of a symmetry, got '0:scales'. Did you mean '0:scale'? "
            "Available: 0:permutation, 0:scale."
        )

    def test_name_that_is_like_no_other(self):
        with pytest.raises(SymmetryError, match=r"got 'xyz'\. Available: 0:permutation, 0:scale\."):
            self.gauge["xyz"]


def test_discovery_leaves_the_model_as_it_is():
    """Bit for bit: parameters, buffers, modes of single modules, gradients, generator."""
    model = chain(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.ReLU(inplace=True), nn.Linear(5, 3))
    model.train()
    model[2].eval()
    model(*rows(4)).sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    state, (x,) = torch.get_rng_state(), rows(4)
    state = torch.get_rng_state()
    copy = x.clone()
    discover(model, (x,))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(x, copy)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(torch.equal(a, p.grad) for a, p in zip(gradients, model.parameters(), strict=True))
    assert [m.training for m in model] == [True, True, False, True, True]
