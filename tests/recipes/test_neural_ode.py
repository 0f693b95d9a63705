"""Every configuration of the recipe runs, and writes what it promises."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from gaugefix.demo.digits import DigitsData
from gaugefix.demo.eeg import EEGData
from gaugefix.demo.ode_classifier import ODEClassifier
from gaugefix.demo.ode_forecaster import ODEForecaster
from gaugefix.demo.spiral import SpiralData
from gaugefix.errors import FieldError
from recipes.neural_ode import main
from tests.recipes.runs import ROOT, assert_explained, configs_of, names_in, read

CONFIGS = configs_of("neural_ode")
SHORT = [
    "--trainer.max_epochs=2",
    "--trainer.limit_train_batches=6",
    "--trainer.enable_progress_bar=false",
    "--trainer.log_every_n_steps=3",
    "--picture=false",
]


def fit(config: Path, out: Path, *more: str) -> Path:
    return main(["fit", "--config", str(config), "--out", str(out), *SHORT, *more]).directory


def config_named(name: str) -> Path:
    return ROOT / "configs" / "neural_ode" / f"{name}.yaml"


def held_out(config: str) -> torch.Tensor:
    data = EEGData() if config.startswith("eeg") else SpiralData() if config.startswith("spiral") else DigitsData()
    data.setup()
    return data.val_data.tensors[0]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_short_run_of_every_configuration(config, tmp_path, capsys):
    model = None

    def run(*args):
        nonlocal model
        cli = main(["fit", *args])
        model = cli.model
        return cli.directory

    directory = run("--config", str(config), "--out", str(tmp_path), *SHORT)
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == str(directory)
    assert "nfe 32, solver_error " in printed
    assert re.fullmatch(rf"\d{{8}}-\d{{6}}-{config.stem}-s0", directory.name)
    assert directory.parent == tmp_path / "neural_ode"
    assert names_in(directory) == ["checkpoints", "config.yaml", "metrics.jsonl", "summary.json"]
    assert names_in(directory / "checkpoints") == ["best.ckpt", "last.ckpt"]

    summary, rows = read(directory)
    assert (summary["recipe"], summary["method"], summary["seed"]) == ("neural_ode", config.stem, 0)
    assert (summary["steps"], summary["solver_steps"], summary["nfe"], summary["diverged"]) == (12, 8, 32, False)
    assert 0 < summary["solver_error"] < 1e-3
    assert summary["gauge_drift_final"] >= 0
    assert (summary["time_slice"] is None) == ("time_gauge_fits" not in summary)
    assert (summary["regularizer"] == "kinetic") == (summary["kinetic"] > 0)
    assert (summary["slice"] is None) == (summary["invariance_error_max"] is None)
    if summary["slice"]:
        assert summary["invariance_error_max"] <= 1e-5
        assert summary["projections"] == 1  # at the start
    if summary["time_slice"]:
        assert summary["time_gauge_fits"] == 1
        assert [row["step"] for row in rows if "time/unevenness" in row] == [0]
    assert [row["step"] for row in rows if "train/loss" in row] == [2, 5, 8, 11]
    assert all(0 < row["val/solver_error"] < 1e-3 for row in rows if "val/loss" in row)
    assert {row["train/nfe"] for row in rows if "train/nfe" in row} == {32.0}

    kind = ODEForecaster if config.stem.startswith("eeg") else ODEClassifier
    loaded = kind.load_from_checkpoint(directory / "checkpoints" / "last.ckpt", weights_only=True)
    u = held_out(config.stem)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(u), model.eval()(u))

    saved = yaml.safe_load((directory / "config.yaml").read_text())
    assert saved["model"]["init_args"]["lr"] == summary["lr"]
    again = run("--config", str(directory / "config.yaml"))
    assert read(again)[0]["train_loss_final"] == summary["train_loss_final"]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_configuration_has_its_launch_line_on_top_and_a_comment_on_every_key(config):
    assert_explained(config, "val_loss_best" if config.stem.startswith("eeg") else "val_acc_best")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_fast_dev_run_writes_nothing(config, tmp_path, capsys):
    fit(config, tmp_path, "--trainer.fast_dev_run", "true")
    assert capsys.readouterr().out.splitlines()[-1] == "fast_dev_run: nothing was written."
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    "solver",
    [["rk4", "--model.adjoint=true"], ["dopri5"], ["dopri5", "--model.adjoint=true", "--model.solver_steps=4"]],
)
@pytest.mark.parametrize("config", ["spiral_baseline", "eeg_baseline"])
def test_other_solvers_and_the_adjoint_train_too(config, solver, tmp_path):
    name, *more = solver
    directory = fit(config_named(config), tmp_path, f"--model.solver={name}", *more, "--model.kinetic=0.001")
    summary, rows = read(directory)
    assert summary["method"] == config.replace("baseline", "kinetic")
    assert ("nfe_backward" in summary) == (len(more) > 0)
    losses = [row["val/loss"] for row in rows if "val/loss" in row]
    assert losses[-1] < losses[0]


def test_divergence_stops_the_run_and_is_reported(tmp_path):
    directory = fit(config_named("spiral_baseline"), tmp_path, "--model.lr", "1e30")
    summary, _ = read(directory)
    assert summary["diverged"] is True
    assert summary["train_loss_final"] is None
    assert summary["solver_error"] is None


def test_double_precision(tmp_path):
    directory = fit(config_named("eeg_baseline"), tmp_path, "--trainer.precision=64-true")
    checkpoint = torch.load(directory / "checkpoints" / "last.ckpt", weights_only=True)
    assert {t.dtype for t in checkpoint["state_dict"].values() if t.is_floating_point()} == {torch.float64}
    assert read(directory)[0]["precision"] == "64-true"


def test_methods_are_named_by_what_they_are_made_of(tmp_path):
    more = ["--trainer.callbacks+=TimeGrid", "--trainer.callbacks.slice=proper_time", "--model.weight_decay=0.1"]
    directory = fit(config_named("spiral_baseline"), tmp_path, *more, "--model.kinetic=0.01")
    assert directory.name.endswith("-spiral_weight_decay+proper_time+kinetic-s0")
    assert (read(directory)[0]["regularizer"], read(directory)[0]["strength"]) == ("weight_decay", 0.1)


def test_data_are_chosen_by_their_short_names(tmp_path):
    more = ["--data=SpiralData", "--data.turns=0.5", "--model=ODEClassifier", "--model.inputs=2", "--model.classes=2"]
    summary, _ = read(fit(config_named("baseline"), tmp_path, *more))
    assert (summary["method"], summary["data"], summary["inputs"]) == ("spiral_baseline", "SpiralData", 2)


def test_data_of_another_size_are_named(tmp_path):
    with pytest.raises(FieldError, match=r"Expected inputs of shape \(batch, 64\) for the model, got \(64, 32\)"):
        fit(config_named("baseline"), tmp_path, "--data=EEGData")


def test_pictures_are_drawn(tmp_path, capsys):
    directory = fit(config_named("spiral_baseline"), tmp_path, "--picture=true")
    printed = capsys.readouterr().out.splitlines()
    for label, name in (("Picture", "picture.png"), ("Trajectories", "trajectories.png")):
        assert (directory / name).read_bytes().startswith(b"\x89PNG")
        assert f"{label}: {directory / name}" in printed


@pytest.mark.parametrize("solver", [["rk4", "--model.adjoint=true"], ["dopri5"], ["euler", "--model.autonomous=true"]])
def test_state_is_projected_through_every_solver(solver, tmp_path):
    name, *more = solver
    directory = fit(config_named("minimal_norm"), tmp_path, f"--model.solver={name}", *more)
    summary, rows = read(directory)
    assert (summary["method"], summary["projections"]) == ("minimal_norm", 1)
    assert 0 < summary["invariance_error_max"] <= 1e-5
    (row,) = [row for row in rows if "gauge/drift_before" in row]
    assert row["gauge/drift_after"] < 1e-3 * row["gauge/drift_before"]
