"""Checkpoints: what is saved at a projection agrees with itself, and a resumed run goes on in phase."""

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gaugefix
from gaugefix import GaugeProjection, OrbitDrift
from gaugefix.errors import CheckpointError
from gaugefix.testing import Probe, relative_change
from tests.callbacks import small_fits
from tests.callbacks.small_fits import INPUTS, Announced, Outputs, mlp, same, state_of, trainer, unbalance_

# Resumed runs have no ModelCheckpoint here, and start the loader anew in mid-epoch: Lightning remarks on both.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used:UserWarning"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch:UserWarning"),
]


def callbacks(**settings):
    return GaugeProjection(every_n_steps=3, **settings), OrbitDrift(every_n_steps=2)


def data():
    """One batch again and again, so that it does not matter where a loader starts."""
    ((x, y),) = small_fits.data(batches=1)
    return DataLoader(TensorDataset(x.repeat(20, 1), y.repeat(20)), len(x))


def interrupted(folder, steps, model=None):
    """Train for ``steps`` steps with a checkpoint after the last."""
    model = model or Announced(unbalance_(mlp()))
    projection, drift = callbacks()
    checkpoint = ModelCheckpoint(dirpath=folder, every_n_train_steps=steps, filename="{step}")
    t = trainer(checkpoint, projection, drift, max_steps=steps, enable_checkpointing=True)
    t.fit(model, data())
    return checkpoint.best_model_path, model, projection, drift, t


@pytest.mark.parametrize("steps", [3, 5])
@pytest.mark.parametrize("weights_only", [None, True])
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(tmp_path, steps, weights_only):
    path, *_ = interrupted(tmp_path, steps)
    resumed, (projection, drift) = Announced(mlp(3)), callbacks()
    trainer(projection, drift, max_steps=12).fit(resumed, data(), ckpt_path=path, weights_only=weights_only)

    whole, (through, measured) = Announced(unbalance_(mlp())), callbacks()
    trainer(through, measured, max_steps=12).fit(whole, data())
    assert same(state_of(resumed), state_of(whole))
    assert projection.steps == drift.steps == 12
    assert projection.history == through.history
    assert [entry["step"] for entry in projection.history] == [0, 3, 6, 9, 12]
    assert (projection.projections, projection.invariance_error) == (through.projections, through.invariance_error)
    assert drift.last.total == measured.last.total


def test_a_checkpoint_at_a_projection_holds_projected_weights_and_states(tmp_path):
    path, model, projection, _, t = interrupted(tmp_path, 3)
    saved = torch.load(path, weights_only=True)
    assert same(saved["state_dict"], state_of(model))
    copy = Announced(mlp(5))
    copy.load_state_dict(saved["state_dict"])
    x = torch.randn(7, INPUTS)
    assert relative_change(Probe(model, (x,))(), Probe(copy, (x,))()) == 0.0
    assert gaugefix.drift(copy, projection.gauge).total <= 1e-3
    states = saved["optimizer_states"][0]["state"]
    for k, p in enumerate(model.parameters()):
        assert torch.equal(states[k]["exp_avg"], t.optimizers[0].state[p]["exp_avg"])


def test_state_is_plain(tmp_path):
    path, *_ = interrupted(tmp_path, 3)
    states = torch.load(path, weights_only=True)["callbacks"]
    ours = {key: state for key, state in states.items() if key.startswith(("GaugeProjection", "OrbitDrift"))}
    assert len(ours) == 2

    def plain(item):
        if isinstance(item, dict):
            return all(type(key) is str and plain(value) for key, value in item.items())
        if isinstance(item, (list, tuple)):
            return all(plain(value) for value in item)
        return item is None or type(item) in (int, float, str, torch.Tensor)

    for state in ours.values():
        assert plain(state)
        assert state["version"] == 1
        assert state["steps"] == 3
        assert state["parameters"]["net.0.weight"] == [8, INPUTS]


def test_the_checkpoint_of_another_model_is_refused(tmp_path):
    path, *_ = interrupted(tmp_path, 3)

    class Another(Announced):
        strict_loading = False

        def load_state_dict(self, state_dict, strict=True, assign=False):
            """A model that takes any weights."""

    other = Another(nn.Sequential(nn.Linear(INPUTS, 8), nn.ReLU(), nn.Linear(8, 3)))
    projection, _ = callbacks()
    message = (
        r"the checkpoint of a model with 'net\.2\.weight' of shape \[3, 8\] for GaugeProjection, got \[7, 8\]\. "
        "It belongs to another model"
    )
    with pytest.raises(CheckpointError, match=message):
        trainer(projection, max_steps=6).fit(other, data(), ckpt_path=path)


def test_the_state_of_another_version_is_refused():
    projection = GaugeProjection()
    with pytest.raises(CheckpointError, match="Expected state of version 1 for GaugeProjection, got 7"):
        projection.load_state_dict({**projection.state_dict(), "version": 7})


def test_a_compiled_model_resumes_from_an_uncompiled_one(tmp_path):
    torch._dynamo.reset()
    path, *_ = interrupted(tmp_path, 3)
    model, (projection, drift) = Announced(mlp()), callbacks()
    model.net.compile(backend="eager")
    trainer(projection, drift, max_steps=6).fit(model, data(), ckpt_path=path)
    assert projection.projections == 3


def test_several_callbacks_of_one_kind_keep_their_own_state(tmp_path):
    def build():
        return [
            GaugeProjection(every_n_steps=2, module="net"),
            GaugeProjection("unit_norm", every_n_steps=5, module="net", name="unit"),
            GaugeProjection(every_n_steps=4),
        ]

    first = build()
    assert len({callback.state_key for callback in first}) == 3
    checkpoint = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=5)
    trainer(*first, checkpoint, max_steps=5, enable_checkpointing=True).fit(Announced(mlp()), data())
    second = build()
    watch = Outputs()
    trainer(*second, watch, max_steps=10).fit(Announced(mlp()), data(), ckpt_path=checkpoint.best_model_path)
    assert [[entry["step"] for entry in callback.history] for callback in second] == [
        [0, 2, 4, 6, 8, 10],
        [0, 5, 10],
        [0, 4, 8],
    ]


def test_state_survives_a_save_without_a_fit(tmp_path):
    path, *_ = interrupted(tmp_path, 3)
    saved = torch.load(path, weights_only=True)["callbacks"]
    projection, _ = callbacks()
    state = saved[projection.state_key]
    projection.load_state_dict(state)
    assert projection.state_dict() == state
