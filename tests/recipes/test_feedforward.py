"""Every configuration of the recipe runs, and writes what it promises."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from gaugefix.demo.mlp import MLP
from recipes.feedforward import main
from tests.recipes.runs import ROOT, assert_explained, configs_of, names_in, read

CONFIGS = configs_of("feedforward")
EPOCHS, BATCHES = 2, 12
STEPS = EPOCHS * BATCHES
SHORT = [
    f"--trainer.max_epochs={EPOCHS}",
    f"--trainer.limit_train_batches={BATCHES}",
    "--trainer.enable_progress_bar=false",
    "--picture=false",
]


def fit(config: Path, out: Path, *more: str) -> Path:
    return main(["fit", "--config", str(config), "--out", str(out), *SHORT, *more]).directory


def interval(config: Path) -> int:
    callbacks = yaml.safe_load(config.read_text())["trainer"]["callbacks"]
    (projection,) = [c for c in callbacks if c["class_path"] == "gaugefix.GaugeProjection"]
    return projection["init_args"]["every_n_steps"]


def config_named(name: str) -> Path:
    return ROOT / "configs" / "feedforward" / f"{name}.yaml"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_short_run_of_every_configuration(config, tmp_path, capsys):
    directory = fit(config, tmp_path)
    assert capsys.readouterr().out.splitlines()[-1] == str(directory)
    assert re.fullmatch(rf"\d{{8}}-\d{{6}}-{config.stem}-s0", directory.name)
    assert directory.parent == tmp_path / "feedforward"
    assert names_in(directory) == ["checkpoints", "config.yaml", "metrics.jsonl", "summary.json"]
    assert names_in(directory / "checkpoints") == ["best.ckpt", "last.ckpt"]

    summary, rows = read(directory)
    assert (summary["recipe"], summary["method"], summary["seed"]) == ("feedforward", config.stem, 0)
    assert 0 < summary["val_acc_best"] <= 1
    assert summary["train_loss_final"] > 0
    assert summary["gauge_drift_final"] >= 0
    assert summary["gauge_residual_max"] >= 0
    assert summary["seconds"] > 0
    assert summary["overhead_pct"] > 0
    assert summary["diverged"] is False
    assert (summary["slice"] is None) == (summary["invariance_error_max"] is None)
    if summary["slice"]:
        assert summary["invariance_error_max"] <= 2.9e-6
        assert summary["projections"] == 1 + STEPS // interval(config)  # one at the start
    assert [row["step"] for row in rows if "train/loss" in row] == [9, 19]
    assert [row for row in rows if "gauge/drift" in row]

    saved = yaml.safe_load((directory / "config.yaml").read_text())
    assert saved["model"]["init_args"]["lr"] == summary["lr"]
    again = main(["fit", "--config", str(directory / "config.yaml")]).directory
    assert read(again)[0]["train_loss_final"] == summary["train_loss_final"]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_configuration_has_its_launch_line_on_top_and_a_comment_on_every_key(config):
    assert_explained(config, "val_acc_best")


def test_launch_line_works_as_printed(tmp_path):
    launch = config_named("minimal_norm").read_text().splitlines()[0].removeprefix("# python ")
    more = ["--model.lr", "0.03", "--out", str(tmp_path), "--trainer.max_epochs=1", "--trainer.limit_train_batches=12"]
    done = subprocess.run(
        [sys.executable, *shlex.split(launch), *more], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    directory = Path(done.stdout.splitlines()[-1])
    assert directory.is_relative_to(tmp_path)
    assert read(directory)[0]["lr"] == 0.03
    assert f"Picture: {directory / 'picture.png'}" in done.stdout.splitlines()
    assert (directory / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_charges_are_predicted_and_drawn(tmp_path, capsys):
    directory = fit(config_named("noether"), tmp_path, "--picture=true", "--trainer.max_epochs=5")
    assert f"Charges: {directory / 'charges.png'}" in capsys.readouterr().out.splitlines()
    assert (directory / "charges.png").read_bytes().startswith(b"\x89PNG")
    _, rows = read(directory)
    charges = [row for row in rows if "gauge/charge" in row]
    assert [row["step"] for row in charges] == [0, 50]
    assert charges[1]["gauge/charge"] < 0.95 * charges[0]["gauge/charge"]
    for row in charges:
        assert row["gauge/charge"] == pytest.approx(row["gauge/charge_predicted"], rel=0.01)
        assert row["gauge/net.0:scale/charge"] < row["gauge/charge"]


def test_two_runs_with_one_name_do_not_clash(tmp_path):
    first = fit(config_named("baseline"), tmp_path)
    second = fit(config_named("baseline"), tmp_path)
    assert first != second
    assert read(first)[1] == read(second)[1]  # and the same seed gives the same run


def test_callbacks_of_the_command_line_name_the_method(tmp_path):
    more = ["--trainer.callbacks+=gaugefix.GaugeProjection", "--trainer.callbacks.slice=unit_norm"]
    directory = fit(config_named("weight_decay"), tmp_path, *more, "--seed_everything", "7")
    summary, _ = read(directory)
    assert directory.name.endswith("-unit_norm+weight_decay-s7")
    assert (summary["slice"], summary["regularizer"], summary["strength"]) == ("unit_norm", "weight_decay", 0.001)


def test_checkpoint_loads_into_the_model(tmp_path):
    directory = fit(config_named("minimal_norm"), tmp_path)
    model = MLP.load_from_checkpoint(directory / "checkpoints" / "last.ckpt", weights_only=True)
    assert model.hparams["widths"] == [256, 256, 256, 256]
    assert torch.isfinite(model(model.example_input_array)).all()


def test_divergence_stops_the_run_and_is_reported(tmp_path):
    directory = fit(config_named("baseline"), tmp_path, "--model.lr", "1e30")
    summary, _ = read(directory)
    assert summary["diverged"] is True
    assert summary["steps"] < 24
    assert summary["train_loss_final"] is None


def test_fast_dev_run_writes_nothing(tmp_path, capsys):
    fit(config_named("minimal_norm"), tmp_path, "--trainer.fast_dev_run", "true")
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out.splitlines()[-1] == "fast_dev_run: nothing was written."


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_wandb_without_an_account_writes_offline_and_says_so(mode, tmp_path):
    pytest.importorskip("wandb")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    command = [sys.executable, "recipes/feedforward.py", "fit", "--config", str(config_named("baseline"))]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--wandb", mode, *SHORT],
        cwd=ROOT,
        env={**environment, "HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "W&B: offline. To upload this run later: wandb sync " in done.stdout
    assert ("No API key configured" in done.stdout) == (mode == "online")
    directory = Path(done.stdout.splitlines()[-1])
    assert list(directory.glob("wandb/offline-run-*/*.wandb"))
    assert read(directory)[0]["status"] == "success"


def test_a_misspelt_option_is_named(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["fit", "--config", str(config_named("minimal_norm")), "--model.learning_rate", "1"])
    assert caught.value.code == 2
    assert "learning_rate" in capsys.readouterr().err


def test_a_resumed_run_counts_from_where_it_was(tmp_path):
    first = fit(config_named("minimal_norm"), tmp_path)
    more = ["--ckpt_path", str(first / "checkpoints" / "last.ckpt"), "--trainer.max_epochs=3"]
    second = fit(config_named("minimal_norm"), tmp_path, *more)
    summary, rows = read(second)
    assert summary["steps"] == 36
    assert [row["step"] for row in rows if "train/loss" in row] == [29]
    assert not [row for row in rows if "gauge/drift_before" in row]  # the projection at the start was the first run's
    assert summary["projections"] == 1


def test_validate_reads_a_checkpoint_and_leaves_nothing_behind(tmp_path, monkeypatch):
    directory = fit(config_named("baseline"), tmp_path / "out")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    checkpoint = str(directory / "checkpoints" / "last.ckpt")
    config = str(config_named("baseline"))
    cli = main(["validate", "--config", config, "--ckpt_path", checkpoint, "--trainer.enable_progress_bar=false"])
    assert float(cli.trainer.callback_metrics["val/acc"]) == pytest.approx(read(directory)[0]["val_acc_final"])
    assert list(Path.cwd().iterdir()) == []
