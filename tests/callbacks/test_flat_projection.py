"""The flat slice in real fits: what is observed, what moves along, and that the function stays."""

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gaugefix
from gaugefix import GaugeProjection, OrbitDrift
from gaugefix.errors import SliceError
from gaugefix.slices import Flat, GradientMoments
from gaugefix.slices.gradient_moments import DECAY
from gaugefix.testing import Probe, relative_change, tolerance
from tests.callbacks import small_fits
from tests.callbacks.small_fits import (
    CLASSES,
    INPUTS,
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
    use_false_gauge,
    warned,
)

RESUMED = (
    "ignore:Be aware that when using `ckpt_path`, callbacks used:UserWarning",
    "ignore:You're resuming from a checkpoint that ended before the epoch:UserWarning",
)


def one_batch(dtype=torch.float32, copies=40):
    """One batch again and again."""
    ((x, y),) = small_fits.data(batches=1, dtype=dtype)
    return DataLoader(TensorDataset(x.repeat(copies, 1), y.repeat(copies)), len(x))


def bottleneck():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(INPUTS, 4, bias=False), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, CLASSES))


def moments_here(model, gauge, batches):
    """The statistics of the gauge where the model is now, from one gradient."""
    x, y = next(iter(batches))
    model.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    found = GradientMoments(gauge)
    found.observe({name: p.grad for name, p in model.named_parameters()})
    return found


def kept(projection):
    return projection._watch.moments


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("net", [mlp, ResidualNorm, bottleneck])
def test_the_function_stays_and_training_goes_on(net, dtype):
    model = Announced(unbalance_(net().to(dtype)))
    before, after = Outputs(dtype), Outputs(dtype)
    projection = GaugeProjection("flat", every_n_steps=2)
    trainer(before, projection, after, max_steps=20).fit(model, data(dtype=dtype))
    assert change(before, after) <= tolerance(dtype)
    assert [entry["step"] for entry in projection.history] == list(range(0, 21, 2))
    assert 0.0 < projection.invariance_error <= tolerance(dtype)
    start, *rest = projection.history
    assert start["drift_before"] > 0.5  # from the slice of minimal norm
    assert start["drift_after"] <= 1e-3
    assert all(entry["drift_before"] > entry["drift_after"] for entry in rest)
    assert (projection.skipped, projection.rolled_back) == (0, 0)
    assert sum(model.losses[-5:]) < sum(model.losses[:5])
    assert 0.0 < projection.seconds < 10.0


def test_the_squared_gradient_falls_to_its_least_and_the_statistics_stay_true():
    """With a learning rate of 0 and one batch, the statistics must be those of the gradient in the gauge of the day."""
    model = Announced(unbalance_(mlp().double()), "SGD", lr=0.0, momentum=0.9)
    sizes = []

    class Watch(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            sizes.append(sum(float(p.grad.square().sum()) for p in pl_module.net[:-1].parameters()))

    projection, batches = GaugeProjection("flat", every_n_steps=1), one_batch(torch.float64)
    trainer(projection, Watch(), max_steps=40).fit(model, batches)
    anew = moments_here(model, projection.gauge, batches).squares()
    for name, square in kept(projection).squares().items():
        assert torch.allclose(square, anew[name], rtol=1e-10, atol=1e-16)
    assert gaugefix.drift(model, projection.gauge, Flat(kept(projection))).total < 1e-3
    assert projection.history[-1]["drift_before"] < 1e-3
    falls = [entry["drift_before"] for entry in projection.history[1:]]
    assert all(b <= a + 1e-3 for a, b in itertools.pairwise(falls))
    assert projection.history[1]["drift_after"] == pytest.approx(projection.history[2]["drift_before"], rel=1e-3)
    assert sizes[-1] < 0.9 * sizes[1]  # sizes[0] is that of the minimal norm too


def test_a_scale_moves_by_no_more_than_a_tenth():
    elements = []

    class Recorded(GaugeProjection):
        def _move(self, trainer, analysed, element):
            elements.append(element)
            return super()._move(trainer, analysed, element)

    trainer(Recorded("flat", every_n_steps=3), max_steps=12).fit(Announced(bottleneck()), data())
    logs = [[torch.linalg.svdvals(v).log() if v.ndim == 3 else v.log() for _, v in e.steps] for e in elements[1:]]
    assert len(logs) == 4
    largest = [max(float(log.abs().max()) for log in step) for step in logs]
    assert max(largest) == pytest.approx(0.1, rel=1e-6)


def test_without_the_start_there_is_no_minimal_norm():
    projection = GaugeProjection("flat", every_n_steps=4, at_start=False)
    model = Announced(unbalance_(mlp()), lr=0.0)
    trainer(projection, max_steps=8).fit(model, data())
    assert [entry["step"] for entry in projection.history] == [4, 8]
    assert gaugefix.drift(model, projection.gauge).total > 1.0


def test_training_without_example_input_starts_after_the_first_batch():
    projection = GaugeProjection("flat", every_n_steps=1)
    trainer(projection, max_steps=4).fit(small_fits.Fitted(unbalance_(mlp())), data())
    assert [entry["step"] for entry in projection.history] == [1, 2, 3, 4]
    assert projection.history[0]["drift_after"] < 1e-3  # the minimal norm


@pytest.mark.filterwarnings(*RESUMED)
@pytest.mark.parametrize("steps", [4, 5])
@pytest.mark.parametrize(("net", "every"), [(mlp, 2), (bottleneck, 2), (mlp, 40)])
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(tmp_path, steps, net, every):
    def callbacks():
        return GaugeProjection("flat", every_n_steps=every), GaugeProjection(
            "minimal_norm", every_n_steps=7, name="norm"
        )

    checkpoint = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=steps)
    first = trainer(*callbacks(), checkpoint, max_steps=steps, enable_checkpointing=True)
    first.fit(Announced(unbalance_(net())), one_batch())
    resumed, (projection, _) = Announced(unbalance_(net(), 2.0)), callbacks()
    path = checkpoint.best_model_path
    trainer(projection, _, max_steps=12).fit(resumed, one_batch(), ckpt_path=path, weights_only=True)
    whole, (through, _) = Announced(unbalance_(net())), callbacks()
    trainer(through, _, max_steps=12).fit(whole, one_batch())
    assert same(state_of(resumed), state_of(whole))
    assert projection.history == through.history
    assert [entry["step"] for entry in projection.history] == list(range(0, 13, every))
    one, two = projection.state_dict()["moments"], through.state_dict()["moments"]
    assert one.pop("calls") == two.pop("calls") == {0: 12}
    assert all(same(one[kind], two[kind]) for kind in two)
    assert one["squares"]
    assert bool(one["products"]) == (net is bottleneck)


def test_a_second_fit_of_the_same_model_keeps_its_statistics_and_another_model_does_not():
    model, projection = Announced(mlp(), lr=0.0), GaugeProjection("flat", every_n_steps=3)
    trainer(projection, max_steps=3).fit(model, one_batch())
    first = kept(projection).state_dict()["squares_weights"]["net.0.weight"]
    trainer(projection, max_steps=3).fit(model, one_batch())
    second = kept(projection).state_dict()["squares_weights"]["net.0.weight"]
    assert float(second) == pytest.approx(1 - (1 - float(first)) ** 2, rel=1e-4)
    trainer(projection, max_steps=3).fit(Announced(mlp(1), lr=0.0), one_batch())
    assert float(kept(projection).state_dict()["squares_weights"]["net.0.weight"]) == float(first)


def test_by_default_it_projects_every_twenty_steps_and_observes_every_other_gradient():
    projection = GaugeProjection("flat")
    trainer(projection, max_steps=45).fit(Announced(mlp()), one_batch(copies=50))
    assert projection.every_n_steps == 20
    assert [entry["step"] for entry in projection.history] == [0, 20, 40]
    weight = float(kept(projection).state_dict()["squares_weights"]["net.0.weight"])
    assert weight == pytest.approx(1 - DECAY**22, rel=1e-4)
    assert GaugeProjection().every_n_steps == 100


class Overflowing(Announced):
    """Its loss is infinite on the third batch, so that a gradient scaler skips that step."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * float("inf") if batch_idx == 2 else loss


@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_scaler_leaves_no_trace(fused):
    """Neither its factor, which it halves at the third batch, nor the infinite gradient there."""
    plugin = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=256.0))
    model, projection = Overflowing(mlp(), lr=0.0, fused=fused), GaugeProjection("flat", every_n_steps=1)
    trainer(projection, max_steps=6, plugins=[plugin]).fit(model, one_batch())
    weight = float(kept(projection).state_dict()["squares_weights"]["net.0.weight"])
    assert weight == pytest.approx(1 - DECAY**5, rel=1e-4)
    anew = moments_here(model, projection.gauge, one_batch()).squares()
    for name, square in kept(projection).squares().items():
        scale = float(anew[name].max())
        assert float((square - anew[name]).abs().max()) < 0.05 * scale  # half precision in the fit


def test_accumulated_batches_are_one_gradient():
    projection, model = GaugeProjection("flat", every_n_steps=1), Announced(mlp().double(), lr=0.0)
    trainer(projection, max_epochs=1, accumulate_grad_batches=4).fit(model, one_batch(torch.float64, copies=8))
    anew = moments_here(model, projection.gauge, one_batch(torch.float64)).squares()
    assert float(kept(projection).state_dict()["squares_weights"]["net.0.weight"]) == pytest.approx(1 - DECAY**2)
    assert all(torch.allclose(square, anew[n], rtol=1e-10) for n, square in kept(projection).squares().items())


class TwoOptimizers(Announced):
    """Manual optimization: the second optimizer steps in every other batch only."""

    raw = False

    def __init__(self, net):
        super().__init__(net)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        every, other = (o.optimizer if self.raw else o for o in self.optimizers())
        every.zero_grad()
        other.zero_grad()
        self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
        every.step()
        if batch_idx % 2:
            other.step()

    def configure_optimizers(self):
        return torch.optim.SGD(self.net[:2].parameters(), 0.0), torch.optim.SGD(self.net[2:].parameters(), 0.0)


def test_several_optimizers():
    model, projection = TwoOptimizers(mlp().double()), GaugeProjection("flat", every_n_steps=2)
    trainer(projection, max_epochs=1).fit(model, one_batch(torch.float64, copies=6))
    weights = kept(projection).state_dict()["squares_weights"]
    assert float(weights["net.0.weight"]) == pytest.approx(1 - DECAY**6)
    assert float(weights["net.2.weight"]) == pytest.approx(1 - DECAY**3)
    anew = moments_here(model, projection.gauge, one_batch(torch.float64)).squares()
    assert all(torch.allclose(square, anew[n], rtol=1e-10) for n, square in kept(projection).squares().items())


def test_steps_that_lightning_does_not_see_are_named():
    model, projection = TwoOptimizers(mlp()), GaugeProjection("flat", every_n_steps=2)
    model.raw = True
    with warned() as messages:
        trainer(projection, max_epochs=1).fit(model, one_batch())
    assert [entry["step"] for entry in projection.history] == [0]
    assert len(messages) == 1
    assert "Expected gradients for slice 'flat', got none" in messages[0]


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`:UserWarning")
def test_a_training_step_that_returns_none_is_no_gradient():
    class Absent(Announced):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 1 else super().training_step(batch, batch_idx)

    projection = GaugeProjection("flat", every_n_steps=1)
    trainer(projection, max_steps=4).fit(Absent(mlp()), one_batch())
    assert float(kept(projection).state_dict()["squares_weights"]["net.0.weight"]) == pytest.approx(1 - DECAY**3)


def test_frozen_parameters_hold_their_units():
    class Frozen(Announced):
        def on_train_start(self):
            self.net[0].requires_grad_(False)  # after the group was found, as fine-tuning schedules do

    model, projection = Frozen(mlp(), lr=0.0), GaugeProjection("flat", every_n_steps=1)
    trainer(projection, max_steps=3).fit(model, one_batch())
    values = Flat(kept(projection)).solve(projection.gauge, projection.gauge.check(model)).values
    below_frozen, free = values.values()
    assert torch.equal(below_frozen, torch.ones(8, dtype=torch.float64))
    assert (free != 1.0).any()


def test_powers_of_two_keep_every_bit():
    model = Announced(unbalance_(ResidualNorm()))
    before, after = Outputs(), Outputs()
    projection = GaugeProjection("flat", every_n_steps=1, dyadic=True)
    trainer(before, projection, after, max_steps=10).fit(model, data())
    assert change(before, after) == 0.0
    assert projection.invariance_error == 0.0
    moved = [entry["drift_before"] - entry["drift_after"] for entry in projection.history[1:]]
    assert max(moved) > 0.3
    assert min(moved) >= 0.0


def test_an_averaged_copy_moves_along():
    model = Announced(unbalance_(mlp()), lr=0.0)
    x = torch.randn(16, INPUTS)
    before = Probe(model, (x,))()
    average, projection = EMAWeightAveraging(decay=0.9), GaugeProjection("flat", every_n_steps=2)
    trainer(average, projection, max_steps=12).fit(model, one_batch())
    assert projection.projections == 7
    assert relative_change(before, Probe(model, (x,))()) <= tolerance(torch.float32, n=7)  # the average, by now


@pytest.mark.parametrize("module", [None, "net"])
def test_projections_of_other_callbacks_take_the_statistics_along(module):
    """Those of a submodule have other names: what they move is forgotten."""
    model = Announced(unbalance_(mlp().double()), lr=0.0)
    flat = GaugeProjection("flat", every_n_steps=2, at_start=False)
    other = GaugeProjection("unit_norm", every_n_steps=3, module=module, name="other", at_start=False)
    trainer(flat, other, max_steps=3).fit(model, one_batch(torch.float64))
    assert other.history[0]["drift_before"] > 0.5
    anew = moments_here(model, flat.gauge, one_batch(torch.float64)).squares()
    found = kept(flat).squares()
    assert found.keys() == (anew.keys() if module is None else set())
    assert all(torch.allclose(square, anew[name], rtol=1e-10) for name, square in found.items())


def test_projections_of_a_larger_group_take_the_statistics_along():
    """A symmetry that only the other callback has, of a stream between norms: all its statistics are forgotten."""

    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.inner = nn.Linear(INPUTS, 8), nn.RMSNorm(8), nn.Linear(8, 9)
            self.between, self.final, self.last = nn.Linear(9, 8), nn.RMSNorm(8), nn.Linear(8, CLASSES)

        def forward(self, x):
            h = self.first(x)
            h = h + self.between(self.inner(self.norm(h)).relu())
            return self.last(self.final(h))

    model = Announced(Stream().double(), lr=0.0)
    flat = GaugeProjection("flat", every_n_steps=2, at_start=False)
    other = GaugeProjection("spectral", every_n_steps=3, name="other", at_start=False, conditional=True)
    trainer(flat, other, max_steps=3).fit(model, one_batch(torch.float64))
    turned = {n for s in other.gauge.applied if s.conditional for n in s.parameters}
    assert turned
    assert not any(s.conditional for s in flat.gauge.applied)
    assert turned.isdisjoint(kept(flat).squares())
    assert kept(flat).squares()


def test_a_projection_that_is_taken_back_leaves_the_statistics():
    model = Announced(mlp())
    use_false_gauge(model)
    projection = GaugeProjection("flat", every_n_steps=2, at_start=False)
    seen = []

    class Checked(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if kept(projection) is not None:
                seen.append(kept(projection).state_dict()["squares"])

    with warned() as messages:
        trainer(Checked(), projection, Checked(), max_steps=2).fit(model, data())
    assert projection.rolled_back == 1
    assert len(messages) == 1
    assert same(seen[-2], seen[-1])


def test_parameters_that_are_not_finite_are_left_alone():
    class Spoiled(Announced):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            super().on_train_batch_end(outputs, batch, batch_idx)
            if batch_idx == 1:
                with torch.no_grad():
                    self.net[2].weight[0, 0] = math.nan

    projection = GaugeProjection("flat", every_n_steps=1)
    with warned() as messages:
        trainer(projection, max_steps=6).fit(Spoiled(mlp()), data())
    assert len(messages) == 1
    assert projection.skipped == 4
    assert all(bool(square.isfinite().all()) for square in kept(projection).squares().values())


def test_the_drift_from_an_unknown_slice_is_refused_before_training():
    model = Announced(mlp())
    with pytest.raises(SliceError, match="to measure drift, take slice='minimal_norm'"):
        trainer(OrbitDrift(slice="flat"), max_steps=2).fit(model, data())
    assert model.losses == []


def test_from_the_command_line():
    program = Path(__file__).parent / "any_cli.py"
    line = ["fit", "--trainer.callbacks+=gaugefix.GaugeProjection", "--trainer.callbacks.slice=flat"]
    line += ["--trainer.callbacks.every_n_steps=5", "--trainer.max_steps=10", "--trainer.accelerator=cpu"]
    line += ["--trainer.logger=false", "--trainer.enable_checkpointing=false", "--trainer.enable_progress_bar=false"]
    command = [sys.executable, "-W", "ignore", str(program), "lightning.pytorch", *line]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.strip().splitlines()[-1])
    assert report["callbacks"]["GaugeProjection"]["history"] == [1, 5, 10]
