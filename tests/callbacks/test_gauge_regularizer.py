"""GaugeRegularizer adds exactly the gradient that the term has in the loss of one step, in real Trainers."""

from __future__ import annotations

import json
import math

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gaugefix
from gaugefix import GaugeProjection, GaugeRegularizer
from gaugefix.callbacks import use_gauge
from gaugefix.demo.jsonl_logger import JsonlLogger
from gaugefix.errors import SettingError
from gaugefix.regularizers import get_term, term_names
from tests.callbacks.small_fits import (
    CLASSES,
    INPUTS,
    Announced,
    Fitted,
    Forwarding,
    data,
    mlp,
    trainer,
    unbalance_,
    warned,
)
from tests.callbacks.test_schedule import Overflowing, TwoOptimizers

STRENGTH = 0.05
HERE = [name for name in term_names() if name not in ("orthogonality", "nuclear_norm", "depth_smoothness")]


class ByHand(Announced):
    """The term in the loss, as a person would put it there."""

    def __init__(self, net, term="charge", strength=STRENGTH, **settings):
        super().__init__(net, **settings)
        self.gauge = gaugefix.discover(self, (self.example_input_array,))
        self.term, self.strength = get_term(term), strength

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss + self.strength * self.term.value(self.gauge, dict(self.named_parameters()))


def far(a: nn.Module, b: nn.Module) -> float:
    """Largest relative difference of parameters."""
    pairs = list(zip(a.net.parameters(), b.net.parameters(), strict=True))
    size = max(float(p.detach().abs().max()) for p, _ in pairs)
    return max(float((p - q).detach().abs().max()) for p, q in pairs) / size


def both(term="charge", optimizer="SGD", batches=12, strength=STRENGTH, plugins=None, **settings):
    """Train with the callback and by hand; return the models and the callback."""
    options = {"optimizer": optimizer, "lr": 1e-2}
    if optimizer == "fused":
        options = {"optimizer": "Adam", "lr": 1e-2, "fused": True}
    model, hand = Announced(mlp(), **options), ByHand(mlp(), term, strength, **options)
    regularizer = GaugeRegularizer(term, strength)
    trainer(regularizer, plugins=plugins() if plugins else None, max_epochs=1, **settings).fit(model, data(batches))
    trainer(plugins=plugins() if plugins else None, max_epochs=1, **settings).fit(hand, data(batches))
    return model, hand, regularizer


def scaler():
    return [MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=256.0))]


@pytest.mark.parametrize("term", HERE)
def test_it_trains_as_the_term_in_the_loss_does(term):
    model, hand, _ = both(term)
    assert far(model, hand) < 1e-5
    plain = Announced(mlp(), optimizer="SGD", lr=1e-2)
    trainer(max_epochs=1).fit(plain, data(12))
    assert far(model, plain) > 5e-5  # it does something at all


@pytest.mark.parametrize(
    "settings",
    [
        {"accumulate_grad_batches": 4},
        {"gradient_clip_val": 0.2},
        {"gradient_clip_val": 0.05, "gradient_clip_algorithm": "value"},
        {"optimizer": "Adam"},
        {"optimizer": "Adam", "accumulate_grad_batches": 4, "gradient_clip_val": 0.2},
    ],
    ids=str,
)
def test_accumulation_and_clipping(settings):
    model, hand, _ = both(**settings)
    assert far(model, hand) < 2e-5


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "fused"])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_gradient_scaler_does_not_scale_the_term(optimizer, accumulate):
    # Half precision rounds both ways alike only up to its eps; a term off by 1/256 or 256 would be far away.
    model, hand, _ = both(optimizer=optimizer, accumulate_grad_batches=accumulate, strength=0.5, plugins=scaler)
    assert far(model, hand) < 2e-3
    plain = Announced(mlp(), optimizer="SGD" if optimizer == "SGD" else "Adam")
    trainer(max_epochs=1, accumulate_grad_batches=accumulate).fit(plain, data(12))
    assert far(model, plain) > 5e-3


def test_bf16_mixed():
    model, hand, _ = both(precision="bf16-mixed", strength=0.5)
    assert far(model, hand) < 1e-2


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`:UserWarning")
def test_a_skipped_step_and_a_missing_loss_add_nothing():
    model, regularizer = Overflowing(mlp()), GaugeRegularizer("l2", 0.1)
    trainer(regularizer, max_epochs=1, plugins=scaler()).fit(model, data(5))
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())

    class Absent(Announced):
        def training_step(self, batch, batch_idx):
            return None

    absent = Absent(mlp(), optimizer="SGD")
    before = [p.detach().clone() for p in absent.parameters()]
    trainer(GaugeRegularizer("l2", 0.1), max_epochs=1).fit(absent, data(3))
    assert all(torch.equal(a, b) for a, b in zip(before, absent.parameters(), strict=True))


def test_parameters_without_a_gradient_are_left_alone():
    class Unused(Announced):
        def __init__(self):
            super().__init__(mlp(), optimizer="SGD")
            self.spare = nn.Linear(3, 3)
            self.net[0].bias.requires_grad_(False)

    model = Unused()
    before = [p.detach().clone() for p in (*model.spare.parameters(), model.net[0].bias)]
    trainer(GaugeRegularizer("l2", 0.5), max_epochs=1).fit(model, data(3))
    after = (*model.spare.parameters(), model.net[0].bias)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_two_optimizers_get_their_own_part_each():
    class Zero(TwoOptimizers):
        def training_step(self, batch, batch_idx):
            first, second = self.optimizers()
            for optimizer in (first, second):
                optimizer.zero_grad()
            self.manual_backward(0.0 * self(batch[0]).sum())
            first.step()
            second.step()

        def configure_optimizers(self):
            return torch.optim.SGD(self.net[:2].parameters(), 1.0), torch.optim.SGD(self.net[2:].parameters(), 2.0)

    model = Zero(mlp())
    before = [p.detach().clone() for p in model.parameters()]
    trainer(GaugeRegularizer("l2", 0.1), max_steps=2).fit(model, data(1))
    factors = [0.9, 0.9, 0.8, 0.8, 0.8, 0.8]
    for old, new, factor in zip(before, model.parameters(), factors, strict=True):
        torch.testing.assert_close(new.detach(), factor * old)


@pytest.mark.parametrize("kind", [Fitted, Forwarding])
def test_the_first_step_has_the_term_without_an_example_input(kind):
    model, announced = kind(mlp(), optimizer="SGD"), Announced(mlp(), optimizer="SGD")
    for one in (model, announced):
        trainer(GaugeRegularizer("charge", 0.1), max_steps=1).fit(one, data(2))
    assert far(model, announced) < 1e-6


def test_together_with_a_projection_and_another_regularizer():
    model = Announced(unbalance_(mlp()), optimizer="SGD")
    projection = GaugeProjection(every_n_steps=2)
    charge, decay = GaugeRegularizer("charge", 0.1), GaugeRegularizer("l2", 0.01)
    trainer(charge, projection, decay, max_epochs=1).fit(model, data(8))
    assert projection.projections == 5
    assert projection.invariance_error <= 2.9e-6
    assert charge.value < 1e-3
    assert decay.value > 1.0


def test_every_few_steps_it_counts_as_many_times():
    class Zero(Announced):
        def training_step(self, batch, batch_idx):
            return 0.0 * self(batch[0]).sum()

    model = Zero(mlp(), optimizer="SGD", lr=1.0)
    before = [p.detach().clone() for p in model.parameters()]
    trainer(GaugeRegularizer("l2", 0.1, every_n_steps=3), max_steps=4).fit(model, data(4))
    for old, new in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), 0.7 * 0.7 * old)  # at the first and at the fourth step


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25]),
        ("cosine", [1, 0.5 + 0.5 * math.cos(math.pi / 4), 0.5, 0.5 - 0.5 * math.cos(math.pi / 4)]),
        ("warmup", [0, 1, 1, 1]),
    ],
)
def test_schedules(schedule, expected):
    class Zero(Announced):
        def training_step(self, batch, batch_idx):
            return 0.0 * self(batch[0]).sum()

    model, sizes = Zero(mlp(), optimizer="SGD", lr=1.0), []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            sizes.append(float(pl_module.net[0].weight.detach().norm()))

    begin = float(model.net[0].weight.detach().norm())
    trainer(GaugeRegularizer("l2", 0.1, schedule), Watch(), max_steps=4).fit(model, data(4))
    ratios = [1.0 - b / a for a, b in zip([begin, *sizes], sizes, strict=False)]
    assert ratios == pytest.approx([0.1 * e for e in expected], abs=1e-6)


def test_a_schedule_needs_an_end():
    with pytest.raises(SettingError, match="max_epochs=-1 and max_steps=-1"):
        trainer(GaugeRegularizer(schedule="linear"), max_epochs=-1).fit(Announced(mlp()), data(2))


def test_it_is_logged_at_the_global_step(tmp_path):
    logger = JsonlLogger(tmp_path)
    regularizer = GaugeRegularizer("charge", 0.0)
    t = trainer(regularizer, max_epochs=1, logger=logger, log_every_n_steps=4)
    t.fit(Announced(mlp()), data(9))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "gauge/charge/value" in row]
    assert [row["step"] for row in rows] == [4, 8]
    assert rows[-1]["gauge/charge/value"] == regularizer.value > 0.0


def one_batch():
    """One batch again and again, so that it does not matter where a loader starts."""
    ((x, y),) = data(batches=1)
    return DataLoader(TensorDataset(x.repeat(20, 1), y.repeat(20)), len(x))


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used:UserWarning")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch:UserWarning")
@pytest.mark.parametrize("term", ["reference", "charge"])
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(tmp_path, term):
    def fit(model, steps, *more, **settings):
        regularizer = GaugeRegularizer(term, 0.2, "linear", every_n_steps=2)
        trainer(*more, regularizer, max_epochs=1, limit_train_batches=12, **settings).fit(model, one_batch(), **steps)
        return model

    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=5, filename="{step}", save_top_k=-1)
    whole = fit(Announced(mlp()), {}, keep, enable_checkpointing=True)
    resumed = fit(Announced(mlp(3)), {"ckpt_path": tmp_path / "step=5.ckpt", "weights_only": True})
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_what_cannot_work_is_refused_with_the_mend():
    with pytest.raises(SettingError, match="Did you mean 'charge'"):
        GaugeRegularizer("charges")
    with pytest.raises(SettingError, match="Expected a strength of 0 or more, got -1"):
        GaugeRegularizer(strength=-1)
    with pytest.raises(SettingError, match="Expected a strength of 0 or more, got 'a'"):
        GaugeRegularizer(strength="a")
    with pytest.raises(SettingError, match="Expected a schedule, got 'linea'"):
        GaugeRegularizer(schedule="linea")
    with pytest.raises(SettingError, match="every_n_steps"):
        GaugeRegularizer(every_n_steps=0)
    with pytest.raises(SettingError, match="got LBFGS: its line search"):
        trainer(GaugeRegularizer(), max_steps=1).fit(Announced(mlp(), optimizer="LBFGS"), data(2))
    with pytest.raises(SettingError, match="Use unit_norm"):
        trainer(GaugeRegularizer("orthogonality"), max_steps=1).fit(Announced(mlp()), data(2))
    with pytest.raises(RuntimeError, match="more than one stateful callback of type `GaugeRegularizer`"):
        trainer(GaugeRegularizer(), GaugeRegularizer())
    trainer(GaugeRegularizer(), GaugeRegularizer(name="again"), max_steps=1).fit(Announced(mlp()), data(2))


def test_sparse_gradients_are_refused():
    class Words(Fitted):
        def __init__(self):
            net = nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, CLASSES))
            super().__init__(net, optimizer="SGD")

    ids = TensorDataset(torch.arange(8), torch.zeros(8, dtype=torch.long))
    with pytest.raises(SettingError, match=r"Expected a dense gradient for '0\.weight'"):
        trainer(GaugeRegularizer("l2"), max_steps=1).fit(Words(), DataLoader(ids, 4))


def test_torch_optimizers_stepped_behind_lightnings_back_are_reported():
    class Raw(TwoOptimizers):
        def training_step(self, batch, batch_idx):
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
            for optimizer in self.optimizers():
                optimizer.optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.optimizer.step()

    with warned() as messages:
        trainer(GaugeRegularizer(), max_epochs=1).fit(Raw(mlp()), data(3))
    (message,) = messages
    assert "did not see the optimizer's step" in message


def test_no_symmetry_is_said_once():
    smooth = nn.Sequential(nn.Linear(INPUTS, 5), nn.GELU(), nn.Linear(5, CLASSES))
    with warned() as messages:
        trainer(GaugeRegularizer(), max_steps=2).fit(Announced(smooth), data(2))
    (message,) = messages
    assert "GaugeRegularizer does nothing" in message


def test_a_gauge_given_by_hand_is_used():
    model = Announced(mlp(), optimizer="SGD")
    first = gaugefix.discover(model, (model.example_input_array,)).select(lambda s: s.name.startswith("net.0"))
    use_gauge(model, first)
    regularizer = GaugeRegularizer("charge", 0.1)
    trainer(regularizer, max_steps=1).fit(model, data(1))
    assert [s.name for s in regularizer.gauge.symmetries] == [s.name for s in first.symmetries]


def test_the_callback_keeps_nothing_when_the_fit_is_over():
    model, regularizer = Announced(mlp()), GaugeRegularizer("charge")
    t = trainer(regularizer, max_steps=2)
    t.fit(model, data(3))
    assert not t.optimizers[0]._optimizer_step_post_hooks
    assert not regularizer._tensors
