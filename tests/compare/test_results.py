"""Reading a directory of runs, whole or damaged."""

import json
import shutil

import pytest

from gaugefix.compare.results import ResultsError, load


def test_a_comparison(grid):
    results = load(grid)
    assert (results.recipe, results.methods) == ("feedforward", ("baseline", "minimal_norm"))
    assert (results.lrs, results.seeds, results.starts) == ((0.02, 1e6), (0, 1), ("balanced", "unbalanced"))
    assert (results.monitor_key, results.maximize, results.planned) == ("val_acc_best", True, 16)
    assert len(results.runs) == 16
    assert {run.outcome for run in results.runs if run.lr == 1e6} == {"diverged"}
    assert {run.outcome for run in results.runs if run.lr == 0.02} == {"finished"}
    cell = results.select("minimal_norm", "unbalanced", 0.02)
    assert [run.directory.name for run in cell] == [f"minimal_norm-lr0.02-unbalanced-s{k}" for k in (0, 1)]


def test_ordinary_runs(plain_runs):
    results = load(plain_runs)
    assert (results.recipe, results.methods, results.starts) == ("neural_ode", ("baseline", "kinetic"), ("balanced",))
    assert (results.monitor, results.planned, results.seeds) == ("val/acc", None, (0,))


def test_a_single_run(plain_runs):
    (run,) = load(sorted(plain_runs.glob("*-kinetic-s0"))[0]).runs
    assert run.method == "kinetic"


def test_the_start_is_read_off_the_configuration(own_grid):
    place = own_grid / "runs" / "baseline-lr0.02-unbalanced-s0"
    summary = json.loads((place / "summary.json").read_text())
    del summary["start"]
    (place / "summary.json").write_text(json.dumps(summary))
    assert len(load(own_grid).select("baseline", "unbalanced", 0.02)) == 2


def test_the_order_is_that_of_the_grid_behind_the_baseline(own_grid):
    described = json.loads((own_grid / "grid.json").read_text())
    described["methods"] = ["minimal_norm", "baseline"]
    (own_grid / "grid.json").write_text(json.dumps(described))
    assert load(own_grid).methods == ("baseline", "minimal_norm")


def test_a_run_without_a_whole_summary_is_named_and_left_out(own_grid):
    runs = own_grid / "runs"
    (runs / "baseline-lr0.02-balanced-s0" / "summary.json").write_text('{"method": "base')
    (runs / "baseline-lr0.02-balanced-s1" / "summary.json").unlink()
    results = load(own_grid)
    assert results.unfinished == ("baseline-lr0.02-balanced-s0", "baseline-lr0.02-balanced-s1")
    assert len(results.runs) == 14


def test_of_ordinary_runs_with_the_same_settings_the_latest_counts(plain_runs, tmp_path):
    runs = shutil.copytree(plain_runs, tmp_path / "neural_ode")
    (first,) = runs.glob("*-baseline-s0")
    later = shutil.copytree(first, runs / "99990101-000000-baseline-s0")
    results = load(runs)
    assert results.superseded == 1
    assert [run.directory for run in results.runs if run.method == "baseline"] == [later]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.rmdir(), "no such directory"),
        (lambda path: None, "Make some: gaugefix compare RECIPE"),
        (lambda path: (path / "grid.json").write_text("{"), "Expected JSON for .*grid.json"),
        (lambda path: (path / "grid.json").write_text("[]"), "Expected a JSON object for .*grid.json.*got list"),
        (lambda path: (path / "grid.json").write_text("{}"), "Make some"),
    ],
    ids=["missing", "empty", "broken", "list", "no runs"],
)
def test_nothing_to_read(tmp_path, make, message):
    path = tmp_path / "runs"
    path.mkdir()
    make(path)
    with pytest.raises(ResultsError, match=message):
        load(path)


def test_runs_that_have_only_begun(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "metrics.jsonl").write_text("")
    with pytest.raises(ResultsError, match="no summary yet: 1"):
        load(tmp_path)


def test_a_directory_of_comparisons_names_them(grid, tmp_path):
    shutil.copytree(grid, tmp_path / "compare-1")
    with pytest.raises(ResultsError, match=r"choose one: .*compare-1"):
        load(tmp_path)
