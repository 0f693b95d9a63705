"""Averaged copies stay in the gauge of the model: with a learning rate of 0 their function must not move."""

import pytest
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, StochasticWeightAveraging
from torch import nn

from gaugefix import GaugeProjection
from gaugefix.testing import Probe, relative_change, tolerance
from tests.callbacks.small_fits import (
    INPUTS,
    Announced,
    ResidualNorm,
    data,
    mlp,
    trainer,
    unbalance_,
    use_false_gauge,
    warned,
)

X = torch.randn(16, INPUTS, generator=torch.Generator().manual_seed(1))


def function(module):
    return Probe(module, (X,))()


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("use_buffers", [True, False])
@pytest.mark.parametrize("net", [mlp, ResidualNorm])
def test_exponential_average(order, use_buffers, net):
    model = Announced(unbalance_(net()), lr=0.0)
    if net is ResidualNorm:
        model.net.norm.momentum = 0.0  # live statistics would move the function of every model
    before = function(model)
    average = EMAWeightAveraging(decay=0.9, use_buffers=use_buffers)
    projection = GaugeProjection(every_n_steps=2, at_start=False)
    seen = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            seen.append(relative_change(before, function(average._average_model.module)))

    callbacks = [average, projection] if order else [projection, average]
    trainer(*callbacks, Watch(), max_steps=6).fit(model, data())
    assert projection.projections == 3
    assert projection.history[0]["drift_before"] > 0.5
    assert max(seen) <= tolerance(torch.float32, n=3)
    assert relative_change(before, function(model)) <= tolerance(torch.float32, n=3)  # the average, by now


def test_an_average_that_was_left_behind_would_be_noticed():
    """The control: without moving the copy, the function of the average changes by its own size."""

    class Forgetful(GaugeProjection):
        def averaged_models(self, trainer, analysed):
            return []

    model = Announced(unbalance_(mlp()), lr=0.0)
    before = function(model)
    trainer(EMAWeightAveraging(decay=0.9), Forgetful(every_n_steps=2, at_start=False), max_steps=6).fit(model, data())
    assert relative_change(before, function(model)) > 0.01


@pytest.mark.parametrize("order", [0, 1])
def test_stochastic_average(order):
    model = Announced(unbalance_(mlp()), "SGD", lr=0.0)
    before = function(model)
    average = StochasticWeightAveraging(swa_lrs=1e-30, swa_epoch_start=1, annealing_epochs=1)
    projection = GaugeProjection(every_n_steps=3, at_start=False)
    callbacks = [average, projection] if order else [projection, average]
    trainer(*callbacks, max_epochs=3).fit(model, data(batches=4))
    assert projection.projections == 4
    assert int(average.n_averaged) >= 2
    assert relative_change(before, function(model)) <= tolerance(torch.float32, n=4)


def test_the_copy_of_a_named_submodule_moves():
    model = Announced(unbalance_(mlp()), lr=0.0)
    before = function(model)
    projection = GaugeProjection(every_n_steps=2, at_start=False, module="net")
    trainer(EMAWeightAveraging(decay=0.9), projection, max_steps=6).fit(model, data())
    assert projection.projections == 3
    assert relative_change(before, function(model)) <= tolerance(torch.float32, n=3)


def test_an_unknown_layout_is_reported_once():
    class WeightAveraging(Callback):
        """As if a later version of Lightning had renamed its attribute."""

    class Another(Callback):
        _average_model = nn.Linear(2, 2)

    projection = GaugeProjection(every_n_steps=1)
    with warned() as messages:
        trainer(WeightAveraging(), Another(), projection, max_steps=3).fit(Announced(mlp()), data())
    assert projection.projections == 4
    assert len(messages) == 2
    for kind in ("WeightAveraging", "Another"):
        assert any(
            m.startswith(f"Expected the averaged model of {kind} in its attribute _average_model") for m in messages
        )


def test_a_rollback_puts_the_copy_back():
    model = Announced(mlp(), lr=0.0)
    use_false_gauge(model)
    average = EMAWeightAveraging(update_starting_at_step=100)
    projection = GaugeProjection(every_n_steps=2, at_start=False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with warned():
        trainer(average, projection, max_steps=2).fit(model, data())
    assert projection.rolled_back == 1
    assert all(torch.equal(before[name], value) for name, value in average._average_model.module.state_dict().items())
