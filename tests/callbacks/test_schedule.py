"""What counts as an optimizer step, in real Trainers."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn

from gaugefix import GaugeProjection, OrbitDrift
from gaugefix.callbacks.schedule import StepCounter
from tests.callbacks.small_fits import Announced, data, mlp, trainer


def fit(model, every=2, batches=10, batch_size=5, **settings):
    projection = GaugeProjection(every_n_steps=every, at_start=False)
    t = trainer(projection, **{"max_epochs": 1, **settings})
    t.fit(model, data(batches, batch_size))
    return projection, t


def steps(projection):
    return [entry["step"] for entry in projection.history]


def test_one_step_per_batch():
    projection, _ = fit(Announced(mlp()), every=3)
    assert projection.steps == 10
    assert steps(projection) == [3, 6, 9]
    assert projection.projections == 3


def test_accumulated_batches_do_not_count_and_an_incomplete_window_does():
    projection, t = fit(Announced(mlp()), every=2, batches=18, accumulate_grad_batches=4)
    assert t.global_step == 5  # four full windows, and the last two batches
    assert projection.steps == 5
    assert steps(projection) == [2, 4]


def test_no_projection_while_gradients_accumulate():
    class Watch(pl.Callback):
        parameters: list[torch.Tensor]

        def on_train_batch_start(self, trainer, pl_module, *_):
            self.parameters = [p.detach().clone() for p in pl_module.parameters()]

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if (batch_idx + 1) % 4:
                assert all(torch.equal(a, b) for a, b in zip(self.parameters, pl_module.parameters(), strict=True))

    projection = GaugeProjection(every_n_steps=1, at_start=False)
    trainer(projection, Watch(), max_epochs=1, accumulate_grad_batches=4).fit(Announced(mlp()), data(8))
    assert projection.projections == 2


class Overflowing(Announced):
    """Its loss is infinite on the third batch, so that a gradient scaler skips that step."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * float("inf") if batch_idx == 2 else loss


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_does_not_count(fused):
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    plugin = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    projection, t = fit(Overflowing(mlp(), fused=fused), every=1, batches=5, plugins=[plugin])
    assert t.global_step == 5  # Lightning counts it
    assert projection.steps == 4
    assert steps(projection) == [1, 2, 4, 5]  # nothing at the skipped third
    assert scaler.get_scale() < 256.0


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`:UserWarning")
def test_a_training_step_that_returns_none_does_not_count():
    class Absent(Announced):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 1 else super().training_step(batch, batch_idx)

    projection, t = fit(Absent(mlp()), every=1, batches=4)
    assert t.global_step == 4
    assert projection.steps == 3
    assert steps(projection) == [1, 3, 4]


class TwoOptimizers(Announced):
    """Manual optimization: the second optimizer steps in every batch, the first in every other one."""

    def __init__(self, net):
        super().__init__(net)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        every, other = self.optimizers()
        every.zero_grad()
        other.zero_grad()
        self.manual_backward(loss)
        every.step()
        if batch_idx % 2:
            other.step()

    def configure_optimizers(self):
        return (
            torch.optim.Adam(self.net[:2].parameters(), 1e-2),
            torch.optim.SGD(self.net[2:].parameters(), 1e-2, momentum=0.9),
        )


def test_the_optimizer_with_the_most_steps_counts():
    projection, t = fit(TwoOptimizers(mlp()), every=4, batches=9)
    assert t.global_step == 13  # 9 and 4
    assert projection.steps == 9
    assert projection.projections == 2
    assert projection.invariance_error <= 2.9e-6


def test_several_steps_in_one_batch_do_not_jump_over_the_interval():
    class Inner(TwoOptimizers):
        def training_step(self, batch, batch_idx):
            for _ in range(3):
                super().training_step(batch, 0)

    projection, _ = fit(Inner(mlp()), every=2, batches=4)
    assert projection.steps == 12
    assert projection.projections == 4  # at 3, 6, 9 and 12: once a batch at most


def test_a_second_fit_does_not_count_twice():
    model, projection, drift = Announced(mlp()), GaugeProjection(every_n_steps=4), OrbitDrift(every_n_steps=4)
    t = trainer(projection, drift, max_epochs=1)
    t.fit(model, data(10))
    t.fit_loop.max_epochs = 2
    t.fit(model, data(10))
    assert t.global_step == projection.steps == drift.steps == 20
    assert steps(projection) == [0, 4, 8, 12, 16, 20]


def test_nothing_is_left_behind():
    model, projection, drift = Announced(mlp()), GaugeProjection(every_n_steps=4), OrbitDrift(every_n_steps=4)
    t = trainer(projection, drift, max_steps=2)
    t.fit(model, data(10))
    assert not t.optimizers[0]._optimizer_step_post_hooks
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_another_model_starts_from_zero():
    projection = GaugeProjection(every_n_steps=4)
    trainer(projection, max_steps=6).fit(Announced(mlp()), data(10))
    trainer(projection, max_steps=4).fit(Announced(mlp(1)), data(10))
    assert projection.steps == 4
    assert steps(projection) == [0, 4]


def test_counter_needs_no_trainer():
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], 0.1)
    counter = StepCounter(2)
    counter.attach([optimizer])
    optimizer.step()  # no gradient: nothing was trained
    assert counter.advance() == (False, False)
    parameter.grad = torch.ones(2)
    seen = []
    for _ in range(4):
        optimizer.step()
        seen.append(counter.advance())
    assert seen == [(True, False), (True, True), (True, False), (True, True)]
    counter.restore(7)
    counter.attach([optimizer])
    optimizer.step()
    assert counter.advance() == (True, True)
    counter.detach()
    optimizer.step()
    assert counter.steps == 8
