"""What a run reports at its end, also when it does not reach it."""

import json

import pytest
from lightning.pytorch import Callback, Trainer

from gaugefix.callbacks import GaugeProjection, GaugeRegularizer, OrbitDrift
from gaugefix.demo.digits import DigitsData
from gaugefix.demo.jsonl_logger import JsonlLogger
from gaugefix.demo.mlp import MLP
from gaugefix.demo.run_summary import RunSummary, greater


class Stop(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        raise RuntimeError("the power is gone")


def fit(directory, *more, summary=None, **settings):
    callbacks = [
        GaugeProjection("minimal_norm", every_n_steps=5),
        OrbitDrift(every_n_steps=5),
        summary or RunSummary({"recipe": "test", "seed": 1}),
        *more,
    ]
    trainer = Trainer(
        accelerator="cpu",
        logger=JsonlLogger(directory),
        callbacks=callbacks,
        limit_train_batches=12,
        log_every_n_steps=4,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    data = DigitsData()
    data.facts = {"pages": 7}
    trainer.fit(MLP(widths=(8,)), datamodule=data)
    return trainer


def read(directory):
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return json.loads((directory / "summary.json").read_text()), rows


def test_summary_agrees_with_the_callbacks_and_the_lines(tmp_path):
    trainer = fit(tmp_path, max_epochs=2)
    projection, drift, *_ = trainer.callbacks
    summary, rows = read(tmp_path)
    assert summary["projections"] == projection.projections == 1 + 24 // 5
    assert summary["invariance_error_max"] == projection.invariance_error
    assert summary["gauge_drift_final"] == drift.last.total
    assert summary["gauge_residual_max"] == max(row["gauge/residual"] for row in rows if "gauge/residual" in row)
    assert summary["val_acc_best"] == max(row["val/acc"] for row in rows if "val/acc" in row)
    made = [(row["step"], row["gauge/drift_after"]) for row in rows if "gauge/drift_after" in row]
    assert made == [(entry["step"], entry["drift_after"]) for entry in projection.history]
    assert [step for step, _ in made] == [0, 5, 10, 15, 20]


def test_best_is_the_least_where_less_is_better(tmp_path):
    fit(tmp_path, summary=RunSummary({}, "val/loss", "min"), max_epochs=3, val_check_interval=4)
    summary, rows = read(tmp_path)
    losses = [row["val/loss"] for row in rows if "val/loss" in row]
    assert len(losses) == 9
    assert summary["val_loss_best"] == min(losses) < losses[0]
    assert summary["val_loss_final"] == losses[-1]
    assert "val_acc_best" not in summary


def test_facts_of_the_data_are_in_the_summary(tmp_path):
    fit(tmp_path, max_epochs=1)
    assert read(tmp_path)[0]["pages"] == 7


def test_overhead_is_the_share_of_the_callbacks(tmp_path):
    trainer = fit(tmp_path, max_epochs=2)
    projection, drift, *_ = trainer.callbacks
    summary, _ = read(tmp_path)
    assert summary["projection_seconds"] == projection.seconds
    assert summary["drift_seconds"] == drift.seconds
    spent = projection.seconds + drift.seconds
    # Validation is part of the seconds and not of the share, so this is a lower bound.
    assert summary["overhead_pct"] >= 100 * spent / (summary["seconds"] - spent)


def test_every_callback_that_counts_its_seconds_is_part_of_the_overhead(tmp_path):
    class Slow(Callback):
        seconds = 0.0

        def on_train_start(self, trainer, pl_module):
            self.seconds = 1000.0

    regularizer = GaugeRegularizer("charge", strength=0.1)
    trainer = fit(tmp_path / "regularizer", regularizer, max_epochs=2)
    projection, drift, *_ = trainer.callbacks
    summary, _ = read(tmp_path / "regularizer")
    assert summary["regularizer_seconds"] == regularizer.seconds > 0
    spent = projection.seconds + drift.seconds + regularizer.seconds
    assert summary["overhead_pct"] >= 100 * spent / (summary["seconds"] - spent)
    assert summary["discovery_seconds"] >= regularizer.discovery_seconds > 0
    fit(tmp_path / "slow", Slow(), max_epochs=1)
    assert read(tmp_path / "slow")[0]["overhead_pct"] is None  # more seconds than the run had: no share to speak of


def test_a_step_takes_the_median(tmp_path):
    fit(tmp_path, max_epochs=2)
    summary, _ = read(tmp_path)
    assert 0 < 12 * summary["step_seconds"] <= summary["seconds"]  # half of 24 steps are at least as slow
    assert 0 < summary["validation_seconds"] < summary["seconds"]


def test_a_run_that_breaks_leaves_its_numbers(tmp_path):
    with pytest.raises(RuntimeError, match="the power is gone"):
        fit(tmp_path, Stop(), max_epochs=1)
    summary, _ = read(tmp_path)
    assert (summary["status"], summary["steps"], summary["recipe"]) == ("failed", 1, "test")
    assert summary["train_loss_final"] > 0


def test_nan_counts_as_no_number():
    nan = float("nan")
    assert greater(nan, 1.0) == 1.0
    assert greater(1.0, nan) == 1.0
    assert greater(1.0, 2.0) == greater(2.0, 1.0) == 2.0
