"""Two processes with fully_shard do what a single device does, together, and hold only their rows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "two_sharded_processes.py"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    command = [sys.executable, "-W", "ignore", str(PROGRAM), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))


@pytest.mark.parametrize("kind", ["mlp", "attention"])
def test_a_fit_on_shards_is_that_of_a_single_device(report, kind):
    found = report[kind]
    assert found["group"]
    assert found["steps"][0] == found["steps"][1] == ([0, 3, 6] if kind == "mlp" else [1, 3])
    assert found["before"][0][0] > 1.0
    assert found["before"][0] == pytest.approx(found["before"][1], rel=1e-9)
    assert len(found["drifts"][0]) == (3 if kind == "mlp" else 2)
    assert found["drifts"][0] == pytest.approx(found["drifts"][1], rel=1e-7)
    assert found["residuals"][0] == pytest.approx(found["residuals"][1], rel=1e-6)
    # Float64; Adam divides gradients that are zero but for rounding by their own size.
    assert found["state"] <= 1e-9
    assert found["rolled back"] == 0
    assert found["invariance"] <= 24 * 2.0**-52


@pytest.mark.parametrize("kind", ["mlp", "attention"])
def test_processes_stay_equal_and_hold_their_rows(report, kind):
    assert report[kind]["processes"] == 0.0
    assert report[kind]["share of rows"] < 0.6  # 4 of 7 rows, 3 of 5, …, 1 of 1


def test_no_process_gathers_the_whole_model(report):
    assert 0.0 < report["gathered at once"] < 0.75


def test_a_checkpoint_resumes_bit_by_bit(report):
    assert report["resumed"] == {"same": True, "steps": [0, 3, 6]}


def test_one_process_takes_the_projection_back_on_both(report):
    assert report["rolled back"] == [[2, 0, True], [2, 0, True]]


def test_a_network_in_bad_coordinates_is_judged_in_float64(report):
    found = report["badly mixed"]
    assert len(found["opinions"]) == 1
    assert 0.0 < found["opinions"][0] < 1e-6  # float32 allows 2.9e-6, and shows more
    assert (found["projections"], found["rolled back"]) == (1, 0)


def test_what_is_refused(report):
    columns, plane, flat, spectral = report["refused"]
    assert "rows on one mesh dimension, Shard(0), for 'net.weight', got S(1). Shard with fully_shard" in columns
    assert "got R, S(0)" in plane
    for message, owner in ((flat, "GaugeProjection"), (spectral, "OrbitDrift")):
        assert f"got ModelParallelStrategy: {owner} as it is set does not work on shards" in message
        assert "with slice 'minimal_norm' take shards" in message
