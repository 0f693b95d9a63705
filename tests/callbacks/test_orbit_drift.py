"""What is logged, where, and at which step."""

import copy
import math

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers.logger import Logger

import gaugefix
from gaugefix import GaugeProjection, OrbitDrift
from gaugefix.functional import step_drift
from tests.callbacks.small_fits import Announced, Fitted, data, mlp, trainer, unbalance_, warned


class Memory(Logger):
    """Keeps what it is given."""

    def __init__(self):
        self.rows: list[tuple[int, dict[str, float]]] = []

    name = version = "memory"

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *args, **kwargs):
        """Nothing to keep."""

    def gauge(self):
        return {step: row for step, row in self.rows if any(key.startswith("gauge/") for key in row)}


class Snapshots(OrbitDrift):
    """Keeps a copy of the model beside every measurement."""

    def act(self, trainer, pl_module, analysed):
        super().act(trainer, pl_module, analysed)
        self.models = getattr(self, "models", {}) | {trainer.global_step: copy.deepcopy(analysed.module)}


def test_rows_hold_what_the_functions_say():
    memory, drift = Memory(), Snapshots(every_n_steps=3)
    trainer(drift, max_steps=7, logger=memory).fit(Announced(unbalance_(mlp())), data())
    rows = memory.gauge()
    assert list(rows) == [0, 3, 6]
    for step, row in rows.items():
        model = drift.models[step]
        expected = gaugefix.drift(model, drift.gauge)
        assert row["gauge/drift"] == pytest.approx(expected.total, rel=1e-4)
        assert row["gauge/residual"] == expected.residual
        for name, value in expected.per_symmetry.items():
            assert row[f"gauge/{name}/drift"] == pytest.approx(value, rel=1e-4)
        assert all(type(value) is float for value in row.values())
    assert "gauge/step_drift" not in rows[0]
    between = step_drift(drift.models[0].state_dict(), drift.models[3], drift.gauge)
    assert rows[3]["gauge/step_drift"] == pytest.approx(math.sqrt(sum(v**2 for v in between.values())), rel=1e-4)
    assert drift.last.total == rows[6]["gauge/drift"]
    assert drift.seconds > 0.0


def test_every_logger_receives_the_rows_and_none_is_needed():
    one, two = Memory(), Memory()
    trainer(OrbitDrift(every_n_steps=2), max_steps=4, logger=[one, two]).fit(Announced(mlp()), data())
    assert one.gauge() == two.gauge()
    assert list(one.gauge()) == [0, 2, 4]
    drift = OrbitDrift(every_n_steps=2)
    trainer(drift, max_steps=4, logger=False).fit(Announced(mlp()), data())
    assert drift.last is not None


def test_names_keep_measurements_apart():
    memory = Memory()
    callbacks = [
        OrbitDrift(every_n_steps=2, name="unit", slice="unit_norm", per_symmetry=False),
        OrbitDrift(every_n_steps=2),
    ]
    trainer(*callbacks, max_steps=2, logger=memory).fit(Announced(mlp()), data())
    keys = {key for _, row in memory.rows for key in row if key.startswith("gauge/unit/")}
    assert keys == {"gauge/unit/drift", "gauge/unit/residual", "gauge/unit/step_drift"}
    assert any("gauge/net.0:scale/drift" in row for _, row in memory.rows)
    assert not any("gauge/unit/net.0:scale/drift" in row for _, row in memory.rows)


def test_order_in_the_list_decides_what_is_seen():
    first, last = OrbitDrift(every_n_steps=4, name="before"), OrbitDrift(every_n_steps=4, name="after")
    projection = GaugeProjection(every_n_steps=4)
    trainer(first, projection, last, max_steps=4).fit(Announced(unbalance_(mlp())), data())
    assert first.last.total > 1e-2
    assert last.last.total <= 1e-3
    assert projection.history[-1]["drift_before"] == pytest.approx(first.last.total, rel=1e-4)


def test_two_numbers_reach_the_progress_bar_and_early_stopping():
    memory = Memory()
    stop = EarlyStopping("gauge/drift", patience=1, check_on_train_epoch_end=True, mode="min")
    t = trainer(OrbitDrift(every_n_steps=2), stop, max_epochs=20, logger=memory)
    t.fit(Announced(mlp()), data(batches=4))
    assert {"gauge/drift", "gauge/residual"} <= set(t.progress_bar_metrics)
    assert set(t.callback_metrics) == {"gauge/drift", "gauge/residual"}
    assert stop.stopped_epoch > 0
    # The progress bar's values are not written a second time, stale, at every later step.
    assert sorted(memory.gauge()) == [step for step, row in memory.rows if "gauge/drift" in row]


@pytest.mark.parametrize("settings", [{"fast_dev_run": 2}, {"barebones": True, "max_steps": 3}])
def test_short_and_bare_runs(settings):
    quiet = ["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary", "log_every_n_steps"]
    bare = dict.fromkeys(quiet) if settings.get("barebones") else {}
    projection, drift = GaugeProjection(every_n_steps=1), OrbitDrift(every_n_steps=1)
    trainer(projection, drift, **bare, **settings).fit(Announced(mlp()), data())
    assert projection.projections == drift.steps + 1 >= 3


def test_without_example_input_measuring_starts_with_the_first_batch():
    memory = Memory()
    trainer(OrbitDrift(every_n_steps=3), max_steps=6, logger=memory).fit(Fitted(mlp()), data())
    assert list(memory.gauge()) == [1, 3, 6]


def test_accumulation_does_not_repeat_rows():
    memory = Memory()
    t = trainer(OrbitDrift(every_n_steps=1), max_epochs=1, accumulate_grad_batches=4, logger=memory)
    t.fit(Announced(mlp()), data(batches=8))
    assert [step for step, row in memory.rows if "gauge/drift" in row] == [0, 1, 2]


def test_parameters_that_are_not_finite_are_reported_once():
    model, memory = Announced(mlp()), Memory()
    with torch.no_grad():
        model.net[0].weight[0, 0] = float("nan")
    with warned() as messages:
        trainer(OrbitDrift(every_n_steps=1), max_steps=3, logger=memory).fit(model, data())
    assert len(messages) == 1
    assert messages[0].startswith("No drift at step 0: Expected finite values for 'net.0.weight'")
    assert not memory.gauge()


def test_nothing_is_changed():
    runs = []
    for callbacks in ([], [OrbitDrift(every_n_steps=1)]):
        model = Announced(mlp())
        trainer(*callbacks, max_steps=4).fit(model, data())
        runs.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    assert torch.equal(*runs)
