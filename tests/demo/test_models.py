"""The recipe's networks: their gauge groups are what theory says, and they learn."""

import pytest
import torch
from torch import nn

import gaugefix
from gaugefix.demo.language_model import LanguageModel
from gaugefix.demo.mlp import MLP
from gaugefix.demo.ode_classifier import ODEClassifier
from gaugefix.demo.residual_cnn import ResidualCNN
from gaugefix.demo.unbalanced_start import UnbalancedStart
from gaugefix.testing import assert_invariant


def test_mlp_has_one_redundant_dimension_per_hidden_unit():
    model = MLP(widths=(7, 5))
    assert gaugefix.discover(model, (model.example_input_array,)).dimension == 12


def test_residual_cnn_has_the_inner_channels_of_every_block_and_the_residual_stream():
    model = ResidualCNN(width=4, blocks=2)
    assert gaugefix.discover(model, (model.example_input_array,)).dimension == 3 * 4


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_optimizer_takes_its_settings(name, kind):
    optimizer = MLP(widths=(4,), optimizer=name, lr=0.3, weight_decay=0.2, momentum=0.7).configure_optimizers()
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.2)
    assert group.get("momentum", 0.7) == 0.7


def test_unbalanced_start_rescales_units_and_keeps_the_function():
    torch.manual_seed(0)
    model = MLP(widths=(40, 30))
    before = [p.detach().clone() for p in model.net[0].parameters()]
    start = UnbalancedStart(log_std=1.0, seed=3)
    assert_invariant(model, (model.example_input_array,), lambda: start.setup(None, model, "fit"))
    logs = (model.net[0].weight.detach() / before[0]).log()
    assert torch.allclose(logs, logs[:, :1].expand_as(logs), atol=1e-5)
    assert torch.allclose((model.net[0].bias.detach() / before[1]).log(), logs[:, 0], atol=1e-5)
    assert 0.7 < float(logs[:, 0].std()) < 1.3
    assert isinstance(model.net, nn.Sequential)


@pytest.mark.parametrize("model", [ODEClassifier, LanguageModel])
def test_unbalanced_start_moves_what_can_be_mixed_too(model):
    torch.manual_seed(0)
    model = model().eval()
    inputs = (model.example_input_array,)
    before = distance_from_slice(model, inputs)
    assert_invariant(model, inputs, lambda: UnbalancedStart(log_std=1.0, seed=3).setup(None, model, "fit"))
    assert distance_from_slice(model, inputs) > 2 * before


def distance_from_slice(model, inputs) -> float:
    return gaugefix.drift(model, gaugefix.discover(model, inputs)).total


def test_unbalanced_start_is_for_training_only():
    model = MLP(widths=(4,))
    before = model.net[0].weight.detach().clone()
    UnbalancedStart().setup(None, model, "validate")
    assert torch.equal(model.net[0].weight, before)
