"""The demo, short but real."""

import json
import subprocess
import sys

import pytest

from gaugefix.demo.picture import read_series

STEPS = 120


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """One run of the command as a person starts it: output lines, stderr, directory of results."""
    place = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "gaugefix.cli", "demo", "--steps", str(STEPS), "--out", "results"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    return lines, done.stderr, place / lines[-1]


def summary(directory, method):
    return json.loads((directory / method / "summary.json").read_text())


def test_last_line_is_the_directory_of_the_results(demo):
    lines, _, directory = demo
    assert lines[-1].startswith("results/demo/")
    assert sorted(path.name for path in directory.iterdir()) == ["baseline", "minimal_norm", "picture.png"]
    assert (directory / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_but_the_demo_speaks(demo):
    lines, errors, _ = demo
    assert errors == ""
    assert not [line for line in lines if "lightning" in line.lower() or "warning" in line.lower() or "Tip" in line]


def test_table_has_a_row_per_method(demo):
    lines, _, _ = demo
    table = lines[next(k for k, line in enumerate(lines) if "invariance" in line) :]
    assert [line.split()[0] for line in table if line[:1].isalpha()][:3] == ["method", "baseline", "minimal_norm"]


def test_projection_keeps_its_promises(demo):
    _, _, directory = demo
    fixed = summary(directory, "minimal_norm")
    assert fixed["projections"] == 2  # at the start and at step 100
    assert 0 < fixed["invariance_error_max"] <= 2.9e-6
    steps, after = read_series(directory / "minimal_norm" / "metrics.jsonl", "gauge/drift_after")
    assert steps == [0, 100]
    assert max(after) <= 1e-3


def test_both_start_from_the_same_function_far_from_the_slice(demo):
    _, _, directory = demo
    first = {m: read_series(directory / m / "metrics.jsonl", "train/loss")[1][0] for m in ("baseline", "minimal_norm")}
    assert all(value > 0 for value in first.values())
    before = read_series(directory / "minimal_norm" / "metrics.jsonl", "gauge/drift_before")[1][0]
    drift = read_series(directory / "baseline" / "metrics.jsonl", "gauge/drift")[1][0]
    assert before == pytest.approx(drift, rel=1e-3)
    assert before > 10


def test_summary_says_what_was_run_and_what_came_out(demo):
    _, _, directory = demo
    for method, slice_name in (("baseline", None), ("minimal_norm", "minimal_norm")):
        found = summary(directory, method)
        assert (found["recipe"], found["method"], found["slice"], found["seed"]) == ("demo", method, slice_name, 0)
        assert found["steps"] == STEPS
        assert found["val_acc_best"] > 0.5
        assert found["overhead_pct"] > 0
        assert found["diverged"] is False
        assert found["status"] == "success"
