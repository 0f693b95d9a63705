"""What a run of a recipe sends to W&B, online and by uploading it later."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gaugefix.compare.wandb_report import write_wandb_report
from gaugefix.demo.wandb_sink import send_page, start_run
from recipes.feedforward import main
from tests.recipes.runs import ROOT, read

# wandb-workspaces still declares its validators as pydantic 1 had them.
pytestmark = pytest.mark.filterwarnings(r"ignore:Pydantic V1 style:DeprecationWarning:wandb_workspaces")
SHORT = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=12", "--trainer.enable_progress_bar=false"]


def fit(mode, out, *more):
    config = str(ROOT / "configs" / "feedforward" / "minimal_norm.yaml")
    command = ["fit", "--config", config, "--out", str(out), "--wandb", mode, "--picture=false", *SHORT, *more]
    return main(command).directory


def only(items):
    (item,) = items.values()
    return item


def upload(command, cwd):
    """Do what was printed; 'wandb' is the program beside this Python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        command, shell=True, check=True, capture_output=True, cwd=cwd, env={**os.environ, "PATH": path}, timeout=60
    )


def assert_same_run(run, directory):
    """What W&B was told is what the run wrote into its own files."""
    summary, rows = read(directory)
    assert run.project == "gaugefix"
    assert run.group == "feedforward/minimal_norm"
    assert run.name == "minimal_norm-s3"
    assert run.exit_code == 0
    flat = {"recipe": "feedforward", "method": "minimal_norm", "slice": "minimal_norm", "seed": 3, "lr": 0.02}
    assert run.config.items() >= {**flat, "regularizer": None, "strength": None}.items()

    headline = {"gauge_drift_final", "gauge_residual_max", "val_acc_best", "diverged", "overhead_pct", "val_loss_final"}
    assert run.summary.keys() >= headline
    known = {*run.config, "status"}
    measured = {key: value for key, value in summary.items() if key not in known and value is not None}
    assert len(measured) > 15
    assert {key: run.summary.get(key) for key in measured} == measured

    sent = [{key: value for key, value in row.items() if not key.startswith("_")} for row in run.history]
    kept = [
        {"trainer/global_step" if key == "step" else key: value for key, value in row.items() if value is not None}
        for row in rows
    ]
    assert sent == kept
    assert {"train/loss", "val/acc", "gauge/drift", "gauge/residual", "gauge/drift_before"} <= set().union(*sent)


def test_an_online_run_sends_what_it_keeps(backend, tmp_path):
    directory = fit("online", tmp_path, "--seed_everything=3", "--model.lr=0.02")
    assert_same_run(only(backend.runs), directory)


def test_an_offline_run_contacts_nobody_and_is_the_same_when_uploaded(backend, tmp_path, capsys):
    directory = fit("offline", tmp_path, "--seed_everything=3", "--model.lr=0.02")
    assert not backend.runs
    assert not backend.telemetry
    (hint,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("W&B: offline.")]
    command = hint.partition("upload this run later: ")[2]
    assert command == f"wandb sync {directory}/wandb/offline-run-*"
    upload(command, tmp_path)
    assert_same_run(only(backend.runs), directory)


def test_a_report_on_wandb_shows_only_what_runs_send(backend, tmp_path):
    pytest.importorskip("wandb_workspaces")
    fit("online", tmp_path)
    run = only(backend.runs)
    write_wandb_report("gaugefix", ["feedforward/minimal_norm"], {"lr": 0.03})
    (view,) = backend.views
    history = {f'"{key}"' for row in run.history for key in row}
    summary = {f'"{key}"' for key in run.summary} | {'"nfe"', '"report"'}  # of neural ODEs, and of comparisons
    accessors = {f'"summary:{key}"' for key in run.summary} | {f'"config:{key}.value"' for key in run.config}
    shown = re.findall(r'"(?:metrics|mediaKeys)":\[([^\]]*)\]|"(?:xAxis|yAxis|accessor)":("[^"]*")', view["spec"])
    named = {name for lists, axis in shown for name in [*lists.split(","), axis] if name}
    assert len(named) > 15
    assert named <= history | summary | accessors


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("<!DOCTYPE html><html><body>μ of 8 methods</body></html>", encoding="utf-8")
    return path


def assert_page_arrived(run, page):
    assert (run.project, run.group, run.job_type) == ("gaugefix", "feedforward/compare", "report")
    assert (run.name, run.exit_code) == ("compare-1", 0)
    (row,) = run.history
    assert row["report"]["_type"] == "html-file"
    assert run.files[row["report"]["path"]] == page.read_bytes()


def test_a_page_is_sent_as_it_is(backend, page):
    send_page(page, "online", "compare-1", "feedforward/compare")
    assert_page_arrived(only(backend.runs), page)


def test_a_page_kept_offline_is_the_same_when_uploaded(backend, page, capsys):
    send_page(page, "offline", "compare-1", "feedforward/compare")
    assert not backend.runs
    assert not backend.telemetry
    upload(capsys.readouterr().out.partition("upload this run later: ")[2], page.parent)
    assert_page_arrived(only(backend.runs), page)


def test_a_key_that_the_server_does_not_know_leaves_the_run_offline(backend, page, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    send_page(page, "online", "compare-1", "feedforward/compare")
    assert not backend.runs
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "W&B: user is not logged in. Going on offline."
    assert said[1].startswith("W&B: offline. To upload this run later: wandb sync ")
    assert list(page.parent.glob("wandb/offline-run-*/*.wandb"))


def test_a_run_that_failed_is_closed_before_the_next(backend, tmp_path):
    start_run("online", tmp_path, "first", "feedforward/baseline").log({"train/loss": 1.0})
    start_run("online", tmp_path, "second", "feedforward/baseline").finish()
    runs = {run.name: run for run in backend.runs.values()}
    assert {name: run.exit_code for name, run in runs.items()} == {"first": 1, "second": 0}
    assert [row["train/loss"] for row in runs["first"].history] == [1.0]
    assert not runs["second"].history


def test_the_project_can_be_another(backend, page, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    send_page(page, "online", "compare-1", "feedforward/compare")
    assert only(backend.runs).project == "mine"
