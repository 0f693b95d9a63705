"""Projection during training: the function stays, the parameters lie on the slice, training goes on."""

import copy
import math

import pytest
import torch
from torch import nn

import gaugefix
from gaugefix import GaugeProjection
from gaugefix.errors import SliceError, TransportError
from gaugefix.slices import MinimalNorm, register_slice
from gaugefix.slices.base import _SLICES
from gaugefix.testing import tolerance
from tests.callbacks.small_fits import (
    CLASSES,
    INPUTS,
    Announced,
    Fitted,
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("net", [mlp, ResidualNorm])
@pytest.mark.parametrize("slice", ["minimal_norm", "unit_norm"])
def test_the_function_stays_and_training_goes_on(net, dtype, slice):
    model = Announced(unbalance_(net().to(dtype)))
    before, after = Outputs(dtype), Outputs(dtype)
    projection = GaugeProjection(slice, every_n_steps=5)
    trainer(before, projection, after, max_steps=20).fit(model, data(dtype=dtype))
    assert change(before, after) <= tolerance(dtype)
    assert [entry["step"] for entry in projection.history] == [0, 5, 10, 15, 20]
    assert 0.0 < projection.invariance_error <= tolerance(dtype)
    assert projection.invariance_error == max(entry["invariance_error"] for entry in projection.history)
    assert projection.history[0]["drift_before"] > 0.5
    assert all(entry["drift_before"] > entry["drift_after"] for entry in projection.history)
    assert max(entry["drift_after"] for entry in projection.history) <= 1e-3
    assert gaugefix.drift(model, projection.gauge, slice).total <= 1e-3
    assert all(math.isfinite(loss) for loss in model.losses)
    assert sum(model.losses[-5:]) < sum(model.losses[:5])
    assert (projection.skipped, projection.rolled_back) == (0, 0)
    assert 0.0 < projection.seconds < 10.0


def test_powers_of_two_keep_every_bit():
    model = Announced(unbalance_(ResidualNorm()))
    before, after = Outputs(), Outputs()
    projection = GaugeProjection(every_n_steps=1, dyadic=True)
    trainer(before, projection, after, max_steps=10).fit(model, data())
    assert change(before, after) == 0.0
    assert projection.invariance_error == 0.0
    assert projection.history[0]["drift_before"] > 1.0


def test_without_the_start_there_is_nothing_before_the_first_interval():
    projection = GaugeProjection(every_n_steps=4, at_start=False)
    trainer(projection, max_steps=8).fit(Announced(mlp()), data())
    assert [entry["step"] for entry in projection.history] == [4, 8]


def test_training_without_example_input_starts_after_the_first_batch():
    projection = GaugeProjection(every_n_steps=4)
    trainer(projection, max_steps=8).fit(Fitted(mlp()), data())
    assert [entry["step"] for entry in projection.history] == [1, 4, 8]


def test_the_callback_itself_does_not_change_a_run():
    """Discovery, probes and counting leave weights, statistics and random numbers alone."""

    class Noisy(Announced):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return nn.functional.cross_entropy(self(x + 0.1 * torch.randn_like(x)), y)

    runs = []
    for callbacks in ([], [GaugeProjection(every_n_steps=1000, at_start=False), gaugefix.OrbitDrift(every_n_steps=1)]):
        torch.manual_seed(0)
        model = Noisy(ResidualNorm())
        trainer(*callbacks, max_steps=5).fit(model, data())
        runs.append(state_of(model))
    assert same(*runs)


def test_momentum_follows_the_parameters():
    """For SGD with momentum, projecting in the middle re-expresses the trajectory: same function, other weights."""
    outputs = []
    for every in (1000, 1):
        model = Announced(unbalance_(mlp().double()), "SGD", lr=0.0, momentum=0.9)
        watch = Outputs(torch.float64)
        trainer(GaugeProjection(every_n_steps=every, at_start=False), watch, max_steps=4).fit(
            model, data(dtype=torch.float64)
        )
        outputs.append(watch.seen[4][0])
    assert torch.allclose(*outputs, rtol=1e-12)


class Spoiled(Announced):
    """One weight becomes NaN in the third step."""

    def on_train_batch_end(self, outputs, batch, batch_idx):
        super().on_train_batch_end(outputs, batch, batch_idx)
        if batch_idx == 1:
            with torch.no_grad():
                self.net[2].weight[0, 0] = float("nan")


def test_parameters_that_are_not_finite_are_left_alone():
    model, projection = Spoiled(mlp()), GaugeProjection(every_n_steps=1)
    with warned() as messages:
        trainer(projection, max_steps=6).fit(model, data())
    assert len(messages) == 1
    assert messages[0].startswith("No projection at step 3: Expected finite values for 'net.")
    assert projection.projections == 3  # at the start, and after the first and the second step
    assert projection.skipped == 4
    assert not torch.isfinite(model.net[2].weight).all()


@pytest.fixture
def hard_to_meet():
    """A slice that orbits with a large first bias do not meet."""

    @register_slice("hard_to_meet")
    class HardToMeet(MinimalNorm):
        def solve(self, gauge, tensors):
            if float(tensors["net.0.bias"].abs().max()) > 100.0:
                raise SliceError("Expected an orbit that meets the slice, got none.")
            return super().solve(gauge, tensors)

    yield
    del _SLICES["hard_to_meet"]


@pytest.mark.parametrize("large_at", [0, 2])
def test_an_orbit_that_leaves_the_slice_costs_projections_and_not_the_run(hard_to_meet, large_at):
    class Growing(Announced):
        def on_train_batch_start(self, batch, batch_idx):
            if batch_idx == large_at:
                with torch.no_grad():
                    self.net[0].bias.fill_(1000.0)

    projection = GaugeProjection("hard_to_meet", every_n_steps=1, at_start=False)
    if large_at == 0:  # it never did: the slice is not for this model
        with pytest.raises(SliceError):
            trainer(projection, max_steps=3).fit(Growing(mlp()), data())
        return
    with warned() as messages:
        trainer(projection, max_steps=5).fit(Growing(mlp()), data())
    assert (projection.projections, projection.skipped) == (2, 3)
    (message,) = messages
    assert message.startswith("No projection at step 3: Expected an orbit that meets the slice")


class Checked(GaugeProjection):
    """Compares everything before and after each projection, bit by bit."""

    untouched = True

    def act(self, trainer, pl_module, analysed):
        optimizer = trainer.optimizers[0]
        before = everything(pl_module, optimizer)
        super().act(trainer, pl_module, analysed)
        self.untouched = self.untouched and same(before, everything(pl_module, optimizer))


def everything(model, optimizer):
    found = state_of(model)
    for name, p in model.named_parameters():
        if p.grad is not None:
            found[f"{name}.grad"] = p.grad.clone()
        found |= {f"{name}.{key}": torch.as_tensor(v).clone() for key, v in optimizer.state.get(p, {}).items()}
    return found


@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
def test_a_projection_that_changes_the_function_is_taken_back(optimizer):
    settings = {"momentum": 0.9} if optimizer == "SGD" else {}
    model = Announced(mlp(), optimizer, **settings)
    use_false_gauge(model)
    projection = Checked(every_n_steps=2, at_start=False)
    with warned() as messages:
        trainer(projection, max_steps=10).fit(model, data())
    assert len(messages) == 4
    assert messages[0].startswith("Expected unchanged outputs for the projection at step 2, got a relative change of ")
    assert "It was taken back. Check the group with gaugefix.verify" in messages[0]
    assert messages[3] == "3 projections in a row were taken back: GaugeProjection is off until the next fit."
    assert projection.untouched
    assert (projection.projections, projection.rolled_back, projection.history) == (0, 3, [])
    assert projection.invariance_error == 0.0


def test_without_probe_nothing_is_compared():
    model = Announced(mlp())
    use_false_gauge(model)
    projection = GaugeProjection(every_n_steps=2, probe=False)
    trainer(projection, max_steps=4).fit(model, data())
    assert (projection.projections, projection.rolled_back) == (3, 0)
    assert math.isnan(projection.invariance_error)


def test_a_good_projection_ends_the_row():
    class Flaky(GaugeProjection):
        """Breaks the function in two projections out of three, by hand."""

        calls = 0

        def averaged_models(self, trainer, analysed):
            self.calls += 1
            if self.calls % 3:
                analysed.module.net[0].calls = 0
                analysed.module.net[0].register_forward_hook(self.spoil)
            return []

        def spoil(self, module, args, output):
            module.calls += 1
            if module.calls == 4:
                module._forward_hooks.clear()
            # after the projection: the probe, and the second opinion in float64
            return output + 1.0 if module.calls in (2, 4) else output

    projection = Flaky(every_n_steps=1, at_start=False)
    with warned() as messages:
        trainer(projection, max_steps=12).fit(Announced(mlp()), data())
    assert (projection.projections, projection.rolled_back) == (4, 8)
    assert len(messages) == 8


def test_dropout_leaves_its_symmetries_out():
    net = nn.Sequential(nn.Linear(INPUTS, 8), nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8), nn.Linear(8, 3))
    model, projection = Announced(net), GaugeProjection(every_n_steps=2)
    full = gaugefix.discover(model, (model.example_input_array,))
    assert any("dropout" in s.exactness.value for s in full.applied)
    trainer(projection, max_steps=4).fit(model, data())
    assert projection.projections == 3
    assert not any("dropout" in s.exactness.value for s in projection.gauge.applied)
    assert projection.gauge.dimension < full.dimension


def test_live_statistics_move_along():
    model, projection = Announced(unbalance_(ResidualNorm())), GaugeProjection(every_n_steps=3)
    trainer(projection, max_steps=6).fit(model, data())
    buffers = [name for s in projection.gauge.applied for name in s.parameters if "running" in name]
    assert buffers
    assert projection.rolled_back == 0


@pytest.mark.parametrize("optimizer", ["LBFGS", "Rprop"])
def test_an_optimizer_without_laws_is_refused_after_its_first_step(optimizer):
    model = Announced(mlp(), optimizer)
    with pytest.raises(TransportError, match=f"known laws of transport, got {optimizer} .* unknown_optimizer='reset'"):
        trainer(GaugeProjection(every_n_steps=100), max_steps=6).fit(model, data())
    assert model.losses == []  # callbacks look at the end of a batch before the model does


@pytest.mark.parametrize("policy", ["reset", "ignore"])
def test_or_its_state_is_reset_or_ignored(policy):
    model = Announced(mlp(), "Adamax")
    projection = GaugeProjection(every_n_steps=3, unknown_optimizer=policy)
    t = trainer(projection, max_steps=6)
    t.fit(model, data())
    assert projection.projections == 3
    moved = {name for s in projection.gauge.applied for name in s.parameters}
    cleared = {n for n, p in model.named_parameters() if not t.optimizers[0].state.get(p)}
    assert cleared == (moved if policy == "reset" else set())


def test_a_cleared_state_comes_back_when_a_projection_is_taken_back():
    model = Announced(mlp(), "Adamax")
    use_false_gauge(model)
    projection = Checked(every_n_steps=2, at_start=False, unknown_optimizer="reset")
    with warned():
        trainer(projection, max_steps=2).fit(model, data())
    assert projection.rolled_back == 1
    assert projection.untouched


def test_a_model_without_symmetry_is_told_once():
    model = Announced(nn.Linear(INPUTS, 3))
    projection, drift = GaugeProjection(every_n_steps=1), gaugefix.OrbitDrift(every_n_steps=1)
    with warned() as messages:
        trainer(projection, drift, max_steps=3).fit(model, data())
    assert len(messages) == 2  # one per callback
    assert messages[0].startswith("GaugeProjection does nothing: no continuous symmetry of Announced holds while it ")
    assert projection.projections == 0
    assert drift.last is None


def test_parameters_are_changed_in_place():
    model = Announced(unbalance_(mlp()))
    kept = [(p, p.data_ptr(), p._version) for p in model.parameters()]
    trainer(GaugeProjection(every_n_steps=1), max_steps=2).fit(model, data())
    for (p, pointer, version), now in zip(kept, model.parameters(), strict=True):
        assert p is now
        assert p.data_ptr() == pointer
        assert p._version > version  # autograd noticed


def test_weight_norm_and_tied_weights_keep_their_function():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.utils.parametrizations.weight_norm(nn.Linear(INPUTS, 8))
            self.second, self.third, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
            self.third.weight = self.second.weight

        def forward(self, x):
            return self.last(self.third(self.second(self.first(x).relu()).relu()).relu())

    model = Announced(Tied())
    before, after, projection = Outputs(), Outputs(), GaugeProjection(every_n_steps=1)
    trainer(before, projection, after, max_steps=5).fit(model, data())
    assert change(before, after) <= tolerance(torch.float32)
    assert projection.rolled_back == 0
    assert model.net.third.weight is model.net.second.weight


def test_bfloat16_parameters():
    model, projection = Announced(unbalance_(mlp())), GaugeProjection(every_n_steps=2)
    trainer(projection, max_steps=4, precision="bf16-true").fit(model, data())
    assert next(model.parameters()).dtype == torch.bfloat16
    assert projection.projections == 3
    assert projection.invariance_error <= tolerance(torch.bfloat16)


class OwnTensors(nn.Module):
    """Makes a tensor in its forward, of torch's default type, which Lightning changes while it trains."""

    def __init__(self):
        super().__init__()
        self.layers = mlp()

    def forward(self, x):
        return self.layers(x @ torch.eye(INPUTS)) @ torch.eye(CLASSES)


@pytest.mark.parametrize("kind", [Announced, Fitted])
@pytest.mark.parametrize("precision", ["64-true", "16-true", "bf16-true"])
def test_a_network_may_make_tensors_of_its_own_in_any_precision(precision, kind):
    model, projection = kind(OwnTensors(), "SGD"), GaugeProjection(every_n_steps=2)
    trainer(projection, max_steps=4, precision=precision).fit(model, data(batch_size=12))
    dtype = next(model.parameters()).dtype
    assert (projection.projections, projection.rolled_back) == (3, 0)
    assert projection.invariance_error <= tolerance(dtype)
    assert len(projection._source.found.inputs.args[0]) <= 8  # and the probe with fewer rows has worked
    assert torch.get_default_dtype() == torch.float32


def test_history_is_plain_numbers():
    projection = GaugeProjection(every_n_steps=2)
    trainer(projection, max_steps=4).fit(Announced(mlp()), data())
    assert all(type(value) in (int, float) for entry in projection.history for value in entry.values())
    assert copy.deepcopy(projection.state_dict())["history"] == projection.history
