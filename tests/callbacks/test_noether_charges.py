"""Noether charges and their predicted decay in a real Trainer."""

import copy
import math

import lightning.pytorch as pl
import pytest
import torch

from gaugefix import GaugeProjection
from gaugefix.callbacks import GaugeRegularizer
from gaugefix.callbacks.decay_clock import DecayClock
from gaugefix.callbacks.noether_charges import NoetherCharges
from gaugefix.functional import charge_norm, noether_charge
from tests.callbacks.small_fits import Announced, Fitted, data, mlp, trainer, unbalance_, warned
from tests.callbacks.test_orbit_drift import Memory


def fit(model, *callbacks, steps=40, batches=200, **settings):
    memory = Memory()
    trainer(*callbacks, max_steps=steps, logger=memory, **settings).fit(model, data(batches=batches))
    return memory


def column(memory, key="gauge/charge"):
    return {step: row[key] for step, row in memory.rows if key in row}


def worst(memory):
    measured, predicted = column(memory), column(memory, "gauge/charge_predicted")
    assert measured.keys() == predicted.keys()
    return max(abs(measured[step] / predicted[step] - 1) for step in measured)


SGD = [
    {"lr": 1e-3, "weight_decay": 5.0},
    {"lr": 1e-3, "weight_decay": 1.0, "momentum": 0.9},
    {"lr": 1e-3, "weight_decay": 1.0, "momentum": 0.9, "nesterov": True},
    {"lr": 2e-3, "weight_decay": 1.0, "momentum": 0.8, "dampening": 0.5},
    {"lr": 1e-3, "weight_decay": 0.0},
]


@pytest.mark.parametrize("settings", SGD, ids=lambda s: "-".join(map(str, s)))
def test_charges_decay_as_predicted(settings):
    """Also without weight decay, where the charge is conserved. A wrong effective time would be off by tenths."""
    model = Announced(unbalance_(mlp()), "SGD", **settings)
    memory = fit(model, NoetherCharges(every_n_steps=10))
    assert list(column(memory)) == [0, 10, 20, 30, 40]
    assert worst(memory) < 0.01
    if settings["weight_decay"]:
        assert column(memory)[40] < 0.8 * column(memory)[0]
    else:
        assert set(column(memory, "gauge/charge_predicted").values()) == {column(memory)[0]}


def test_the_error_is_of_second_order_in_the_learning_rate():
    """Half the learning rate over twice the steps, on one batch again and again: O(lr²) a step is O(lr) in all."""
    errors = []
    for lr, steps in ((2e-2, 20), (1e-2, 40)):
        model = Announced(unbalance_(mlp(), 2.0), "SGD", lr)
        memory = fit(model, NoetherCharges(every_n_steps=steps), steps=steps, batches=1, max_epochs=steps)
        errors.append(worst(memory))
    assert errors[0] > 1e-5
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.15)


def test_rows_hold_what_the_functions_say():
    measured, models = NoetherCharges(every_n_steps=4), {}

    class Copies(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            models[trainer.global_step] = copy.deepcopy(pl_module)

    memory = fit(Announced(mlp(), "SGD", lr=0.05, weight_decay=0.1), Copies(), measured, steps=8)
    charges = noether_charge(models[8], measured.gauge)
    (_, row) = next((step, row) for step, row in memory.rows if step == 8 and "gauge/charge" in row)
    assert row["gauge/charge"] == pytest.approx(charge_norm(charges), rel=1e-12)
    names = [f"gauge/{name}/charge" for name in charges]
    assert math.hypot(*(row[name] for name in names)) == pytest.approx(row["gauge/charge"], rel=1e-12)
    predicted = [row[f"{name}_predicted"] for name in names]
    assert math.hypot(*predicted) == pytest.approx(row["gauge/charge_predicted"], rel=1e-12)
    factor = (1 - 0.05 * 0.1) ** 16
    assert row[f"{names[0]}_predicted"] == pytest.approx(column(memory, names[0])[0] * factor, rel=1e-12)
    assert (measured.last, measured.predicted) == (row["gauge/charge"], row["gauge/charge_predicted"])
    assert measured.seconds > 0.0


def test_learning_rate_schedules_count():
    class Scheduled(Announced):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            step = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 1.0 if k < 20 else 0.01)
            return [optimizer], [{"scheduler": step, "interval": "step"}]

    memory = fit(Scheduled(unbalance_(mlp()), "SGD", lr=1e-3, weight_decay=10.0), NoetherCharges(every_n_steps=20))
    assert worst(memory) < 0.01
    rows = column(memory)
    assert rows[20] / rows[0] == pytest.approx(math.exp(-0.4), rel=0.02)
    assert rows[40] / rows[20] == pytest.approx(math.exp(-0.004), rel=0.02)


def test_a_projection_starts_the_prediction_anew():
    memory = fit(
        Announced(unbalance_(mlp()), "SGD", lr=0.05, weight_decay=0.1),
        GaugeProjection(every_n_steps=20, at_start=False),
        NoetherCharges(every_n_steps=10),
    )
    measured, predicted = column(memory), column(memory, "gauge/charge_predicted")
    assert measured[20] < 1e-2 * measured[10]
    assert measured[20] == predicted[20]
    assert predicted[10] < predicted[0]
    assert predicted[30] == pytest.approx(measured[20] * math.exp(-2 * 10 * 0.05 * 0.1), rel=1e-3)


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW"])
def test_other_optimizers_have_no_prediction_and_say_so(optimizer):
    measured = NoetherCharges(every_n_steps=2)
    with warned() as messages:
        memory = fit(Announced(mlp(), optimizer, 1e-2, weight_decay=0.1), measured, steps=4)
    assert len(messages) == 1
    assert "'net.0.weight' is not trained by torch's SGD" in messages[0]
    assert "A prediction needs torch.optim.SGD" in messages[0]
    assert list(column(memory)) == [0, 2, 4]
    assert not [key for _, row in memory.rows for key in row if key.endswith("charge_predicted")]
    assert measured.predicted is None
    assert len(measured.lawless) == 2


def test_biases_without_decay_have_no_prediction():
    class Split(Announced):
        def configure_optimizers(self):
            weights = [p for p in self.net.parameters() if p.ndim > 1]
            biases = [p for p in self.net.parameters() if p.ndim == 1]
            groups = [{"params": weights, "weight_decay": 0.1}, {"params": biases}]
            return torch.optim.SGD(groups, lr=1e-2)

    with warned() as messages:
        memory = fit(Split(mlp()), NoetherCharges(every_n_steps=2), steps=4)
    assert "its legs have different weight decays or learning rates" in messages[0]
    assert list(column(memory)) == [0, 2, 4]
    assert list(column(memory, "gauge/charge_predicted")) == [0]  # before the first step nothing has decayed


@pytest.mark.parametrize(("term", "lawful"), [("charge", False), ("l2", False), ("product_of_norms", True)])
def test_regularizers_that_depend_on_the_gauge_have_no_prediction(term, lawful):
    with warned() as messages:
        memory = fit(Announced(mlp(), "SGD"), GaugeRegularizer(term, 0.1), NoetherCharges(every_n_steps=2), steps=4)
    assert bool(column(memory, "gauge/charge_predicted")) == lawful
    assert [f"the GaugeRegularizer '{term}' pushes along the orbit" in m for m in messages] == [True] * (not lawful)


def test_a_resumed_fit_goes_on_predicting(tmp_path):
    def build():
        return Announced(unbalance_(mlp()), "SGD", lr=1e-3, weight_decay=3.0, momentum=0.9)

    def end(epochs, **more):
        memory = Memory()
        t = trainer(NoetherCharges(every_n_steps=10), max_epochs=epochs, logger=memory)
        t.fit(build(), data(batches=20), **more)
        return t, column(memory, "gauge/charge_predicted")

    end(1)[0].save_checkpoint(tmp_path / "half.ckpt")
    _, rest = end(2, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    _, whole = end(2)
    assert list(rest) == [30, 40]
    assert rest == {step: pytest.approx(whole[step], rel=1e-12) for step in rest}


def test_without_example_input_the_start_is_behind_the_first_batch():
    memory = fit(Fitted(mlp(), "SGD", lr=1e-3, weight_decay=1.0), NoetherCharges(every_n_steps=5), steps=10)
    assert list(column(memory)) == [1, 5, 10]
    start = column(memory)[1]
    assert column(memory, "gauge/charge_predicted")[1] == start
    assert column(memory, "gauge/charge_predicted")[10] == pytest.approx(start * (1 - 1e-3) ** 18, rel=1e-9)


def test_names_headline_and_nothing_is_changed():
    memory = fit(Announced(mlp(), "SGD"), NoetherCharges(2, name="mine", per_symmetry=False), steps=2)
    keys = {key for _, row in memory.rows for key in row if key.startswith("gauge/")}
    assert keys == {"gauge/mine/charge", "gauge/mine/charge_predicted"}
    runs = []
    for callbacks in ([], [NoetherCharges(every_n_steps=1)]):
        model = Announced(mlp(), "SGD", momentum=0.9)
        t = trainer(*callbacks, max_steps=4)
        t.fit(model, data())
        runs.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    assert torch.equal(*runs)
    assert {"gauge/charge", "gauge/charge_predicted"} <= set(t.callback_metrics)
    assert {"gauge/charge", "gauge/charge_predicted"} <= set(t.progress_bar_metrics)


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}])
def test_the_clock_follows_a_parameter_without_gradient_exactly(settings):
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = torch.optim.SGD([parameter], lr=0.05, weight_decay=0.03, **settings)
    clock = DecayClock()
    clock.attach([optimizer])
    for step in range(40):
        optimizer.param_groups[0]["lr"] = 0.05 / (1 + step % 3)
        parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    parameter.grad = None
    optimizer.step()  # changes nothing and does not count
    exponent = clock.exponents()[id(parameter)]
    expected = math.exp(-exponent) * torch.tensor([1.0, -2.0], dtype=torch.float64)
    torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=0.0)
    clock.reset()
    assert clock.exponents()[id(parameter)] == 0.0
    clock.detach()
    assert clock.exponents() == {}
