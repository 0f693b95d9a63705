"""Vertical fraction of updates and regularizers in a real Trainer."""

import copy

import lightning.pytorch as pl
import pytest
import torch

import gaugefix
from gaugefix import GaugeProjection
from gaugefix.callbacks import GaugeRegularizer
from gaugefix.callbacks.vertical_fraction import VerticalFraction
from gaugefix.functional import vertical_fraction
from gaugefix.regularizers import get_term
from tests.callbacks.small_fits import Announced, Fitted, data, mlp, trainer, unbalance_, warned
from tests.callbacks.test_orbit_drift import Memory


class Points(pl.Callback):
    """Copies the network before every optimizer step and behind every batch."""

    def __init__(self):
        self.before, self.after = [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.before.append(copy.deepcopy(pl_module))

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.after.append(copy.deepcopy(pl_module))


def fractions(memory, key="gauge/vertical_fraction"):
    return {step: row[key] for step, row in memory.rows if key in row}


def fit(model, *callbacks, steps=6, **settings):
    memory = Memory()
    trainer(*callbacks, max_steps=steps, logger=memory, **settings).fit(model, data())
    return memory


def test_rows_hold_the_fraction_of_the_step_that_was_made():
    measured, points = VerticalFraction(every_n_steps=3), Points()
    memory = fit(Announced(unbalance_(mlp()), "Adam", 1e-2), points, measured, steps=7)
    assert list(fractions(memory)) == [3, 6]
    for step, value in fractions(memory).items():
        before, after = points.before[step - 1], points.after[step - 1]
        moved = {n: q - p for (n, p), q in zip(before.named_parameters(), after.parameters(), strict=True)}
        assert value == pytest.approx(vertical_fraction(before, measured.gauge, moved), rel=1e-5)
        assert 1e-4 < value < 1.0
    assert measured.last == fractions(memory)[6]
    assert measured.seconds > 0.0


@pytest.mark.parametrize("first", [True, False])
def test_a_projection_in_the_same_batch_does_not_count(first):
    """The step of plain gradient descent is horizontal, however far the projection behind it goes."""
    measured, projection = VerticalFraction(every_n_steps=2), GaugeProjection(every_n_steps=2, at_start=False)
    callbacks = [projection, measured] if first else [measured, projection]
    model = Announced(unbalance_(mlp()).double(), "SGD", 1e-2)
    memory = Memory()
    trainer(*callbacks, max_steps=4, logger=memory, precision="64-true").fit(model, data(dtype=torch.float64))
    assert projection.history[0]["drift_before"] > 0.1
    assert list(fractions(memory)) == [2, 4]
    assert max(fractions(memory).values()) < 1e-12


def test_weight_decay_is_vertical_away_from_minimal_norm_only():
    far, near = (
        fit(Announced(net, "SGD", 1e-2, weight_decay=10.0), *callbacks, VerticalFraction(every_n_steps=1), steps=2)
        for net, callbacks in (
            (unbalance_(mlp()), []),
            (unbalance_(mlp()), [GaugeProjection(every_n_steps=1)]),
        )
    )
    assert fractions(far)[2] > 0.1
    assert fractions(near)[2] < 1e-3 * fractions(far)[2]


def test_momentum_mixes_gradients_of_several_points():
    memory = fit(Announced(unbalance_(mlp()), "SGD", 0.05, momentum=0.9), VerticalFraction(every_n_steps=1))
    assert fractions(memory)[1] < 1e-8  # the first step is along the gradient
    assert max(fractions(memory).values()) > 1e-6


def test_gradients_of_regularizers():
    charge, l2, control = (GaugeRegularizer(term, 1e-2) for term in ("charge", "l2", "product_of_norms"))
    other = GaugeRegularizer("charge", 1e-2, name="other")
    points = Points()
    memory = fit(Announced(unbalance_(mlp())), points, charge, l2, control, other, VerticalFraction(2), steps=2)
    value = {key: fractions(memory, f"gauge/{key}/vertical_fraction")[2] for key in ("charge", "l2", "other/charge")}
    assert value["charge"] == value["other/charge"] == pytest.approx(1.0, abs=1e-5)  # ∇½‖μ‖² = V μ
    assert fractions(memory, "gauge/product_of_norms/vertical_fraction")[2] < 1e-6
    before = points.before[1]
    weights = {n: p.detach() for n, p in before.named_parameters()}
    gauge = gaugefix.discover(before, (before.example_input_array,))
    assert value["l2"] == pytest.approx(vertical_fraction(before, gauge, weights), rel=1e-4)
    found = {n: torch.zeros_like(p) for n, p in weights.items()}
    get_term("charge").add_gradient_(gauge, weights, found, 1.0)
    assert vertical_fraction(before, gauge, found) == pytest.approx(1.0, abs=1e-5)


def test_nothing_is_kept_between_measurements():
    measured, during, behind = VerticalFraction(every_n_steps=3), [], []

    class Look(pl.Callback):
        def on_before_zero_grad(self, trainer, *_):
            if measured._recorder.before:  # Lightning computes the gradient within the optimizer's step
                during.append(trainer.global_step + 1)

        def on_train_batch_end(self, *_):
            behind.append(len(measured._recorder.before) + len(measured._recorder.update))

    fit(Announced(mlp()), measured, Look(), steps=7)
    assert during == [3, 6]
    assert behind == [0] * 7


def test_nothing_is_changed():
    runs = []
    for callbacks in ([], [VerticalFraction(every_n_steps=1)]):
        model = Announced(mlp(), "SGD", momentum=0.9)
        fit(model, *callbacks, steps=4)
        runs.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    assert torch.equal(*runs)


def test_accumulated_batches_make_one_step():
    memory = fit(Announced(mlp()), VerticalFraction(every_n_steps=2), steps=4, accumulate_grad_batches=3)
    assert list(fractions(memory)) == [2, 4]


def test_without_example_input_measuring_starts_behind_the_first_batch():
    memory = fit(Fitted(mlp()), VerticalFraction(every_n_steps=1), steps=4)
    assert list(fractions(memory)) == [2, 3, 4]


class TwoOptimizers(Announced):
    """Alternates two optimizers within each batch, by hand."""

    automatic_optimization = False

    def configure_optimizers(self):
        first, *rest = self.net.parameters()
        return torch.optim.SGD([first], 1e-2), torch.optim.SGD(rest, 1e-2)

    def training_step(self, batch, batch_idx):
        optimizers = self.optimizers()
        loss = super().training_step(batch, batch_idx)
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in optimizers:
            optimizer.step()
        return loss


def test_steps_of_several_optimizers_add_up():
    """Together they are one step along the gradient; each alone would not be horizontal."""
    model = TwoOptimizers(unbalance_(mlp()).double())
    memory = Memory()
    settings = {"max_epochs": 1, "limit_train_batches": 4, "logger": memory, "precision": "64-true"}
    trainer(VerticalFraction(every_n_steps=2), **settings).fit(model, data(dtype=torch.float64))
    assert len(fractions(memory)) == 2
    assert max(fractions(memory).values()) < 1e-12


def test_names_and_headline():
    memory = fit(Announced(mlp()), VerticalFraction(2, name="mine"), steps=2)
    assert list(fractions(memory, "gauge/mine/vertical_fraction")) == [2]
    t = trainer(VerticalFraction(every_n_steps=2), max_steps=2)
    t.fit(Announced(mlp()), data())
    assert "gauge/vertical_fraction" in t.callback_metrics
    assert "gauge/vertical_fraction" in t.progress_bar_metrics


def test_parameters_that_are_not_finite_are_reported_once():
    model = Announced(mlp(), "SGD", 1e-2)
    with torch.no_grad():
        model.net[0].weight[0, 0] = float("nan")
    with warned() as messages:
        memory = fit(model, VerticalFraction(every_n_steps=1), steps=3)
    assert len(messages) == 1
    assert messages[0].startswith("No vertical fraction at step 1: Expected finite values for 'net.0.weight'")
    assert not fractions(memory)
