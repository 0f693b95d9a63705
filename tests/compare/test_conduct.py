"""gaugefix compare, as a person types it: real grids of all recipes, gone on with, stopped, failing, diverging."""

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gaugefix import cli
from gaugefix.compare import conduct, dry_run
from gaugefix.compare.worker import carry_out
from tests.recipes.runs import ROOT, names_in, read

TINY_TRANSFORMER = [
    "model.width=16",
    "model.layers=1",
    "model.heads=2",
    "data.context=8",
    "trainer.limit_val_batches=2",
]


def compare(out: Path, *words: str) -> int:
    return cli.main(["compare", *words, "--out", str(out)])


def files(out: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of the runs, with its time and content."""
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in out.glob("runs/*/*") if path.is_file()}


class HereAndNow:
    """A crew in this process, which has torch in memory already: the same work without the start of another process."""

    def __init__(self, tasks: list[dict], jobs: int) -> None:
        self.tasks = tasks

    def replies(self):
        for task in self.tasks:
            yield task, carry_out(task)

    def stop(self) -> None:
        pass


@pytest.fixture
def no_process(monkeypatch):
    for module in (conduct, dry_run):
        monkeypatch.setattr(module, "Crew", HereAndNow)


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Path:
    """Two methods × two learning rates, of which one diverges, × two seeds of twenty steps."""
    out = tmp_path_factory.mktemp("grid") / "out"
    words = ["feedforward", "--methods", "baseline,minimal_norm@5+charge:1e-3", "--lrs", "0.03,1e30", "--seeds", "2"]
    assert compare(out, *words, "--max-steps", "20", "--start", "unbalanced", "--set", "model.widths=[16,16]") == 0
    return out


def test_every_run_of_the_grid_is_there_and_says_what_it_is(grid):
    names = [
        f"{label}-lr{lr}-unbalanced-s{seed}"
        for label in ("baseline", "minimal_norm@5+charge=1e-3")
        for lr in ("0.03", "1e+30")
        for seed in (0, 1)
    ]
    assert names_in(grid / "runs") == sorted(names)
    for name in names:
        directory = grid / "runs" / name
        assert {"config.yaml", "metrics.jsonl", "summary.json"} <= {*names_in(directory)} <= {
            "config.yaml", "metrics.jsonl", "summary.json", "output.txt"
        }  # fmt: skip
        summary, rows = read(directory)
        assert name == f"{summary['method'].replace(':', '=')}-lr{summary['lr']:g}-unbalanced-s{summary['seed']}"
        assert (summary["recipe"], summary["start"], summary["status"]) == ("feedforward", "unbalanced", "success")
        assert summary["diverged"] is (summary["lr"] > 1)
        if not summary["diverged"]:
            assert summary["steps"] == 20
            assert [row["step"] for row in rows if "val/loss" in row] == [19]
            assert summary["projections"] == (5 if "minimal" in name else 0)
    description = json.loads((grid / "grid.json").read_text())
    axes = {key: description[key] for key in ("recipe", "methods", "lrs", "seeds", "starts", "max_steps", "monitor")}
    assert axes == {
        "recipe": "feedforward",
        "methods": ["baseline", "minimal_norm@5+charge:1e-3"],
        "lrs": [0.03, 1e30],
        "seeds": [0, 1],
        "starts": ["unbalanced"],
        "max_steps": 20,
        "monitor": "val/acc",
    }
    assert {"python", "torch", "cpu_cores"} <= {*description["environment"]}


def test_a_run_of_the_grid_is_an_ordinary_run_of_the_recipe(grid, tmp_path):
    from recipes.feedforward import main

    directory = grid / "runs" / "minimal_norm@5+charge=1e-3-lr0.03-unbalanced-s1"
    again = main(["fit", "--config", str(directory / "config.yaml"), "--out", str(tmp_path)]).directory
    ours, theirs = (read(one)[0] for one in (directory, again))
    same = ("train_loss_final", "val_loss_final", "val_acc_best", "gauge_drift_final", "method", "strength")
    assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}


def test_the_report_is_written_and_its_path_printed_last(grid, capsys):
    assert cli.main(["report", str(grid)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(grid / "report.html")
    assert {"results.csv", "table.md", "report.html", "report.png"} <= {*names_in(grid)}


def test_the_command_typed_again_touches_nothing_and_shows_the_table(grid, capsys):
    before = files(grid)
    command = json.loads((grid / "grid.json").read_text())["command"]
    assert cli.main(shlex.split(command)[1:]) == 0
    assert files(grid) == before
    printed = capsys.readouterr().out
    assert printed.startswith("8 of 8 runs are there already.\n")
    rows = [line.split() for line in printed.splitlines()]
    assert [row[0] for row in rows if "of" in row and row[0] != "8"] == ["baseline", "minimal_norm@5+charge:1e-3"]
    assert printed.count("2 of 4") == 2  # diverged
    assert printed.splitlines()[-1] == str(grid / "report.html")


def test_another_comparison_in_its_directory_is_refused_by_what_differs(grid, capsys):
    before = files(grid)
    words = ["feedforward", "--max-steps", "21", "--set", "model.widths=[16,16]"]
    assert compare(grid, *words) == 2
    assert compare(grid, "transformer", "--max-steps", "20") == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "--max-steps was 20 and is 21. Choose another directory" in first
    assert "the recipe was 'feedforward' and is 'transformer'" in second
    assert files(grid) == before


def test_a_method_that_fails_is_recorded_the_others_go_on_and_it_is_tried_again(tmp_path, capsys, no_process):
    out = tmp_path / "out"
    words = ["neural_ode", "--methods", "proper_time,unit_norm,kinetic", "--seeds", "1"]
    more = ["--max-steps", "2", "--set", "model.solver=dopri5", "--set", "model.dimension=4", "--set", "model.hidden=4"]
    assert compare(out, *words, *more) == 0
    printed = capsys.readouterr().out
    assert "proper_time-lr0.001-balanced-s0 failed: SettingError: Expected a solver with fixed steps" in " ".join(
        printed.split()
    )
    summaries = {
        name: json.loads((out / "runs" / name / "summary.json").read_text()) for name in names_in(out / "runs")
    }
    failed = summaries.pop("proper_time-lr0.001-balanced-s0")
    assert {"method": "proper_time", "lr": 0.001, "start": "balanced", "seed": 0, "status": "failed"}.items() <= {
        *failed.items()
    }
    assert failed["error"].startswith("SettingError: Expected a solver with fixed steps for TimeGrid, got 'dopri5'")
    assert "Traceback" in (out / "runs" / "proper_time-lr0.001-balanced-s0" / "output.txt").read_text()
    assert {summary["status"] for summary in summaries.values()} == {"success"}
    assert {summary["method"] for summary in summaries.values()} == {"unit_norm", "kinetic"}

    before = files(out)
    assert compare(out, *words, *more) == 0
    assert {Path(path).parent.name for path, what in files(out).items() if what[0] != before[path][0]} == {
        "proper_time-lr0.001-balanced-s0"
    }
    assert "2 of 3 runs are there already." in capsys.readouterr().out


def test_the_transformer_and_its_dry_run(tmp_path, capsys, no_process):
    settings = [word for setting in TINY_TRANSFORMER for word in ("--set", setting)]
    words = ["transformer", "--methods", "baseline,spectral@2", "--seeds", "2", "--max-steps", "4", *settings]
    assert compare(tmp_path / "out", *words, "--dry-run") == 0
    printed = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert "2 methods × 1 learning rate × 1 start × 2 seeds = 4 runs; 0 are there already." in printed
    assert "net.blocks.0.attention" in printed
    assert "spectral@2: GaugeProjection(slice='spectral', every_n_steps=2)" in printed
    assert "Estimate from 25 timed steps of each method: " in printed
    assert compare(tmp_path / "out", *words) == 0
    summaries = [read(path)[0] for path in sorted((tmp_path / "out" / "runs").iterdir())]
    assert [summary["projections"] for summary in summaries] == [0, 0, 3, 3]
    assert [summary["steps"] for summary in summaries] == [4] * 4
    assert all(summary["val_loss_final"] > 0 for summary in summaries)


def test_ctrl_c_keeps_what_is_finished_writes_the_report_and_can_be_gone_on_with(tmp_path, capsys, no_process):
    out = tmp_path / "out"
    words = ["compare", "feedforward", "--methods", "baseline", "--seeds", "3", "--max-steps", "400"]
    words += ["--set", "model.widths=[8]", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "gaugefix.cli", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever started the tests in the background has made them, and what they start, deaf to it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while (
        time.monotonic() < deadline
        and process.poll() is None
        and not (out / "runs/baseline-lr0.03-balanced-s1").exists()
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    kept = names_in(out / "runs")
    assert kept == [f"baseline-lr0.03-balanced-s{k}" for k in range(len(kept))]
    assert 0 < len(kept) < 3
    assert all(read(out / "runs" / name)[0]["status"] == "success" for name in kept)
    assert (out / "report.html").stat().st_size > 10_000
    assert printed.splitlines()[-1] == str(out / "report.html")
    (again,) = [line.partition("To go on: ")[2] for line in printed.splitlines() if line.startswith("Stopped: ")]

    before = files(out)
    assert cli.main(shlex.split(again)[1:]) == 0
    after = files(out)
    assert {path: after[path] for path in before} == before
    assert len(names_in(out / "runs")) == 3
    assert f"{len(kept)} of 3 runs are there already." in capsys.readouterr().out
