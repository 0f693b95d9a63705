"""Around the training step: shortened, interrupted and validating loops, and models that are compiled in between."""

import math
import signal

import pytest
import torch
from lightning.pytorch.callbacks import BaseFinetuning, EarlyStopping, GradientAccumulationScheduler, ModelCheckpoint
from lightning.pytorch.tuner import Tuner
from torch import nn

import gaugefix
from gaugefix import GaugeProjection, GaugeRegularizer, OrbitDrift
from gaugefix.callbacks import NoetherCharges, VerticalFraction
from gaugefix.testing import tolerance
from tests.callbacks.small_fits import (
    Announced,
    Outputs,
    ResidualNorm,
    change,
    data,
    mlp,
    same,
    state_of,
    trainer,
    unbalance_,
)


class Validated(Announced):
    """Validates, tests and predicts too."""

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def predict_step(self, batch, batch_idx):
        return self(batch[0])


class Waiting(Validated):
    """Without an example input, so that calls have to be waited for."""

    def __init__(self, net):
        super().__init__(net)
        self.example_input_array = None


# ---- shortened and other loops --------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [Validated, Waiting])
@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"overfit_batches": 1, "max_epochs": 5}, 5),
        ({"overfit_batches": 3, "max_epochs": 2}, 6),
        ({"limit_train_batches": 0.25, "max_epochs": 2}, 4),
        ({"limit_train_batches": 3, "accumulate_grad_batches": 2, "max_epochs": 2}, 4),  # the third batch alone
        ({"accumulate_grad_batches": 3, "max_epochs": 1, "gradient_clip_val": 0.01}, 3),
        ({"val_check_interval": 1, "limit_val_batches": 1, "max_steps": 5}, 5),
        ({"num_sanity_val_steps": 2, "max_steps": 5, "limit_val_batches": 2}, 5),
        ({"num_sanity_val_steps": 0, "limit_val_batches": 0, "max_steps": 5}, 5),
        ({"fast_dev_run": 5}, 5),
        ({"fast_dev_run": True}, 1),
        ({"max_time": {"hours": 1}, "max_epochs": 1}, 8),
        ({"detect_anomaly": True, "max_steps": 5}, 5),
        ({"inference_mode": False, "max_steps": 5, "val_check_interval": 2}, 5),
    ],
    ids=str,
)
def test_loops(settings, steps, kind):
    model = kind(unbalance_(ResidualNorm()))
    before, after = Outputs(), Outputs()
    projection, drift = GaugeProjection(every_n_steps=2), OrbitDrift(every_n_steps=2)
    trainer(before, projection, drift, after, **settings).fit(model, data(8), data(3, seed=1))
    assert change(before, after) <= tolerance(torch.float32)
    assert projection.steps == drift.steps == steps
    first = (
        0 if kind is Validated or "accumulate_grad_batches" in settings else 1
    )  # behind the first batch, step or not
    assert [entry["step"] for entry in projection.history] == [first, *range(2, steps + 1, 2)]
    assert projection.rolled_back == 0
    assert projection.history[0]["drift_before"] > 0.5


def test_accumulation_that_changes_in_mid_fit():
    projection = GaugeProjection(every_n_steps=2)
    schedule = GradientAccumulationScheduler({0: 1, 1: 4})
    trainer(schedule, projection, max_epochs=2).fit(Announced(mlp()), data(8))
    assert projection.steps == 8 + 2
    assert [entry["step"] for entry in projection.history] == [0, 2, 4, 6, 8, 10]


def test_early_stopping_on_what_is_validated():
    """Projections leave what is validated alone: a fit stops where it would without them."""
    epochs = []
    for callbacks in ([], [GaugeProjection(every_n_steps=2), OrbitDrift(every_n_steps=3)]):
        stop = EarlyStopping("val_loss", patience=1, min_delta=1e-3)
        trainer(stop, *callbacks, max_epochs=9).fit(Validated(unbalance_(mlp()), lr=0.0), data(4), data(2, seed=1))
        epochs.append(stop.stopped_epoch)
    assert epochs[0] == epochs[1] == 1


class Thawing(BaseFinetuning):
    """Trains the first layer from the second epoch on."""

    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.net[0])

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.net[0], optimizer)


def test_layers_that_thaw_in_mid_fit_move_from_the_next_fit_on():
    """The group is that of the start of the fit: units of a frozen layer are not in it."""

    class Model(Announced):
        def configure_optimizers(self):
            return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], 1e-2)

    model, projection = Model(unbalance_(mlp())), GaugeProjection(every_n_steps=2)
    before, after = Outputs(), Outputs()
    trainer(before, Thawing(), projection, after, max_epochs=3).fit(model, data(4))
    assert change(before, after) <= tolerance(torch.float32)
    assert [s.name for s in projection.gauge.applied if s.group.dimension] == ["net.2:scale"]
    trainer(projection, max_epochs=1).fit(model, data(4))
    assert [s.name for s in projection.gauge.applied if s.group.dimension] == ["net.0:scale", "net.2:scale"]
    assert gaugefix.drift(model, projection.gauge).total <= 1e-3


def test_a_layer_that_freezes_in_mid_fit_goes_on_moving_with_its_units():
    class Freezing(Announced):
        def on_train_epoch_start(self):
            self.net[0].requires_grad_(self.current_epoch < 1)
            self.start = self.net[0].weight.detach().clone()

    model, projection = Freezing(unbalance_(mlp())), GaugeProjection(every_n_steps=2)
    before, after = Outputs(), Outputs()
    trainer(before, projection, after, max_epochs=2).fit(model, data(4))
    assert change(before, after) <= tolerance(torch.float32)
    rows = nn.functional.cosine_similarity(model.net[0].weight.detach(), model.start)
    assert float(rows.min()) > 1 - 1e-5  # scaled by projections, not trained
    assert not torch.equal(model.net[0].weight, model.start)


def test_a_search_for_a_learning_rate_leaves_no_trace(tmp_path):
    class Searched(Validated):
        lr = 1e-3

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), self.lr)

    model, projection = Searched(unbalance_(mlp())), GaugeProjection(every_n_steps=2)
    t = trainer(projection, max_steps=4, default_root_dir=tmp_path, enable_checkpointing=True)
    before = state_of(model)
    Tuner(t).lr_find(model, data(), data(1), num_training=10)
    assert same(state_of(model), before)
    assert (projection.steps, projection.projections) == (0, 0)
    t.fit(model, data(), data(1))
    assert [entry["step"] for entry in projection.history] == [0, 2, 4]


# ---- without training -----------------------------------------------------------------------------------------------
def ours():
    return (
        GaugeProjection(every_n_steps=2),
        OrbitDrift(every_n_steps=2),
        GaugeRegularizer("charge", 0.05),
        NoetherCharges(every_n_steps=2),
        VerticalFraction(every_n_steps=2),
    )


def left_behind(model, optimizers):
    """Hooks that are still there."""
    hooks = [m for m in model.modules() if m._forward_pre_hooks or m._forward_hooks]
    hooks += [o for o in optimizers if o._optimizer_step_post_hooks or o._optimizer_step_pre_hooks]
    return hooks + ([] if torch._dynamo.eval_frame._stance.stance == "default" else ["stance"])


@pytest.mark.filterwarnings("ignore:NoetherCharges logs charges without:gaugefix.errors.NoEffectWarning")
def test_runs_that_do_not_train_touch_nothing():
    callbacks, model = ours(), Validated(unbalance_(mlp()))
    t = trainer(*callbacks, max_steps=6)
    before = state_of(model)
    t.validate(model, data(2), verbose=False)
    t.test(model, data(2), verbose=False)
    t.predict(model, data(2))
    assert same(state_of(model), before)
    assert all(callback.gauge is None for callback in callbacks)
    t.fit(model, data(), data(2))
    trained = state_of(model)
    t.validate(model, data(2), verbose=False)
    assert len(t.predict(model, data(2))) == 2
    assert same(state_of(model), trained)
    assert [callback.steps for callback in callbacks[:2]] == [6, 6]
    assert not left_behind(model, t.optimizers)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used:UserWarning")
@pytest.mark.parametrize("fitted", [True, False])
def test_a_checkpoint_that_is_tested_brings_weights_and_counters_back(tmp_path, fitted):
    """Lightning loads the state of callbacks with it, which counts for this model and for no other."""
    model, callbacks = Validated(unbalance_(mlp())), ours()[:2]
    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=3, save_top_k=-1, filename="{step}")
    trainer(*callbacks, keep, max_steps=6, enable_checkpointing=True).fit(model, data(), data(1))
    path = str(tmp_path / "step=3.ckpt")
    callbacks = callbacks if fitted else ours()[:2]
    (loss,) = trainer(*callbacks).test(model, data(2), ckpt_path=path, verbose=False)
    assert math.isfinite(loss["test_loss"])
    assert same(state_of(model), torch.load(path, weights_only=True)["state_dict"])
    steps = callbacks[0].steps
    assert steps in (3, 6 if fitted else 0)  # 3: of the checkpoint; older versions of Lightning load it for fits only
    trainer(*callbacks, max_steps=3).fit(model, data(), data(1))
    assert [callback.steps for callback in callbacks] == [steps + 3] * 2
    if steps == 3:
        assert [entry["step"] for entry in callbacks[0].history] == [0, 2, 1, 3]  # a new Trainer counts from 0
    trainer(*callbacks).test(model, data(2), ckpt_path=path, verbose=False)
    trainer(*callbacks, max_steps=2).fit(Validated(ResidualNorm()), data(), data(1))
    assert [callback.steps for callback in callbacks] == [2, 2]


# ---- interrupted ----------------------------------------------------------------------------------------------------
class Failing(Waiting):
    """Fails once, at one place of one batch."""

    where, at = "", -1

    def _fail(self, where, batch_idx):
        if (where, batch_idx) == (self.where, self.at):
            self.at = -1
            raise self.error

    def training_step(self, batch, batch_idx):
        self._fail("before the call", batch_idx)
        loss = super().training_step(batch, batch_idx)
        self._fail("after the call", batch_idx)
        return loss

    def on_before_optimizer_step(self, optimizer):
        self._fail("in the optimizer step", self.trainer.fit_loop.batch_idx)

    def validation_step(self, batch, batch_idx):
        self._fail("in validation", batch_idx)


@pytest.mark.filterwarnings("ignore:NoetherCharges logs charges without:gaugefix.errors.NoEffectWarning")
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize(
    ("where", "at"),
    [
        ("before the call", 0),
        ("after the call", 0),
        ("after the call", 3),
        ("in the optimizer step", 0),
        ("in the optimizer step", 3),
        ("in validation", 0),
    ],
)
def test_an_interrupted_fit_leaves_no_hook_and_the_next_one_goes_on(where, at, error):
    model, callbacks = Failing(unbalance_(mlp())), ours()
    model.where, model.at, model.error = where, at, error
    t = trainer(*callbacks, max_steps=6, num_sanity_val_steps=0, val_check_interval=4)
    interrupts = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit if error is KeyboardInterrupt else error):
            t.fit(model, data(), data(2))
    finally:
        signal.signal(signal.SIGINT, interrupts)  # Lightning ignores Ctrl+C from the first one on
    assert not left_behind(model, t.optimizers)
    made = callbacks[0].steps
    assert made == {"in validation": 4}.get(where, at)
    before, after = Outputs(), Outputs()
    unbalance_(model.train().net)  # Lightning leaves it in eval mode where validation failed
    trainer(before, *callbacks, after, max_steps=6).fit(model, data(), data(2))
    assert change(before, after) <= tolerance(torch.float32)
    assert callbacks[0].steps == callbacks[1].steps == made + 6
    assert gaugefix.drift(model, callbacks[0].gauge).total <= 1e-3 or (made + 6) % 2


# ---- compiled -------------------------------------------------------------------------------------------------------
def test_a_model_that_is_compiled_after_a_fit_goes_on():
    torch._dynamo.reset()
    model, projection = Validated(unbalance_(mlp())), GaugeProjection(every_n_steps=2)
    trainer(projection, max_steps=4).fit(model, data(), data(1))
    for compiled in (False, True):
        if compiled:
            model.net = torch.compile(model.net, backend="eager")
        else:
            model.net.compile(backend="eager")
        before, after = Outputs(), Outputs()
        trainer(before, projection, after, max_steps=4).fit(model, data(), data(1))
        assert change(before, after) <= tolerance(torch.float32)
    assert projection.steps == 12
    assert projection.projections == 7
    assert projection.rolled_back == 0
