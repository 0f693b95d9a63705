"""Two processes make the same projections and add the same terms, or say together why not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "two_processes.py"
WITH, WITHOUT = "one with 'net.0:scale'", "one without 'net.0:scale'"
OTHER = "one with 'net.0:sign', one without 'net.0:scale', unlike process 0. Parameters would move apart. Give all"


@pytest.fixture(scope="module")
def report():
    done = subprocess.run([sys.executable, "-W", "ignore", str(PROGRAM)], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))


@pytest.mark.parametrize("kind", ["minimal norm", "flat", "spectral"])
def test_processes_stay_equal(report, kind):
    found = report[kind]
    assert found["difference"] == 0.0
    assert found["difference of states"] == 0.0
    assert found["rolled_back"] == 0
    assert [entry["step"] for entry in found["history"]] == [0 if kind == "flat" else 1, 3, 6]
    assert found["history"][0]["drift_before"] > 0.5
    assert max(entry["invariance_error"] for entry in found["history"]) <= 2.9e-6
    one, two = found["measured"]
    assert one == two
    assert all(value > 0.0 for value in one)
    assert one[0] <= 1e-3 or kind != "minimal norm"


def test_processes_observe_the_same_gradients(report):
    assert report["flat"]["moments"] == 6
    assert report["flat"]["difference of moments"] == 0.0


def test_processes_project_at_the_same_steps_whatever_drift_each_of_them_sees(report):
    assert report["interval"] == [[0, 2, 6, 14]] * 2


def test_one_process_takes_the_projection_back_on_both(report):
    """Bit by bit: both end where they would without projections."""
    assert report["rolled back"] == [[0, 0, 3, True]] * 2


def test_one_process_whose_running_averages_are_not_finite_keeps_both_from_projecting(report):
    assert report["not finite"] == {"counts": [[2, 1, 0]] * 2, "difference": 0.0}


@pytest.mark.parametrize(
    ("case", "first", "second"),
    [
        ("activation", "one with 'net.0:scale', one without 'net.0:sign', unlike process 1", OTHER),
        ("activation, first batch", WITH, OTHER),
        ("regularizer", WITH, OTHER),
        ("by hand", f"{WITH}, unlike process 1", f"{WITHOUT}, unlike process 0"),
        ("frozen", f"{WITH}, 'net.0:permutation', unlike", f"{WITHOUT}, 'net.0:permutation', unlike process 0"),
        ("legs", "other legs of 'net.0:scale', unlike process 1", "other legs of 'net.0:scale', unlike process 0"),
        ("no example", "one of 8 symmetries, on process 1 none yet (the network was not called)", "none yet (the net"),
        ("error", "one of 8 symmetries, on process 1 an error (Expected a model that torch.export can", None),
    ],
)
def test_different_groups_are_an_error_on_both(report, case, first, second):
    one, two = report["disagreeing"][case]
    owner = {"frozen": "OrbitDrift", "regularizer": "GaugeRegularizer"}.get(case, "GaugeProjection")
    start = f"SettingError: Expected the same gauge group on all processes for {owner}, got on process "
    assert one.startswith(f"{start}0 {first}")
    assert two.startswith(f"{start}1 {second}" if second else "DiscoveryError: Expected a model that torch.export")
    assert "set the same example_input_array on all of them" in one
