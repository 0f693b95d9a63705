"""On the shards of two processes, terms, slices and charges are those of one device; so are fits with them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gaugefix.regularizers import term_class, term_names

ON_SHARDS = [name for name in term_names() if term_class(name).takes_shards]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.sharding.two_processes",
        str(tmp_path_factory.mktemp("two")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))


@pytest.mark.parametrize("name", ON_SHARDS)
def test_the_gradient_of_the_rows_is_that_of_whole_parameters(report, name):
    found = report["terms"][name]
    assert found["cases"] >= 10  # networks, each sharded as a whole and with a third of its parameters left whole
    assert found["largest"] > 1.0
    assert found["gradient"] <= 1e-13  # float64; of the largest entry
    assert found["value"] <= 1e-13
    assert found["bits"]  # sums, and gradients of what both processes have, do not differ by a bit


def test_neighbours_that_lie_differently_are_named(report):
    assert "Expected neighbours that are sharded alike" in report["terms"]["neighbours"]


def test_unit_norm_and_charges(report):
    found = report["slices"]
    assert len(found["unit_norm"]) > 10
    assert max(found["unit_norm"]) <= 1e-14
    assert max(found["residual"]) <= 1e-14
    assert found["refused alike"] == [True] * 3  # recurrent networks, which have no unit norm
    assert len(found["charges"]) > 15
    assert max(found["charges"]) <= 1e-14


def test_what_is_gathered_for_a_gradient(report):
    """Nothing for units, nor for heads that lie on one process each; otherwise what a cut goes through, one by one."""
    found = report["gathered"]
    assert found["charge of mlp"] == found["product_of_norms of mlp"] == found["balance of post-norm encoder"] == 0.0
    assert 0.3 < found["balance of grouped queries"] < 0.34  # keys and values of one head
    assert 0.3 < found["balance of bottleneck"] < 0.4


def test_both_processes_hear_of_what_one_has_found(report):
    assert len(report["not finite"]) == 2
    assert all("'2.weight', got 1 NaN or infinite" in message for message in report["not finite"])


@pytest.mark.parametrize("kind", ["without sync", "blocks"])
def test_a_fit_is_that_of_a_single_device(report, kind):
    """AdamW, clipped; accumulated without sync and projected onto unit norm, or kept whole behind the forward."""
    found = report[kind]
    assert found["added"] <= 1e-13  # at every step, against the term on gathered parameters
    assert found["steps"] == (4 if kind == "without sync" else 3)
    assert found["state"] <= 1e-10
    assert found["processes"] == 0.0
    assert found["value"][0] == pytest.approx(found["value"][1], rel=1e-12)
    assert found["sharded"]
    assert found["projections"][0] == found["projections"][1] == ([0, 2, 4] if kind == "without sync" else [])
    assert len(found["drifts"][0]) == (3 if kind == "without sync" else 0)
    assert found["drifts"][0] == pytest.approx(found["drifts"][1], rel=1e-9, abs=1e-12)
    assert found["rolled back"] == 0
    assert (found["fewest rows"] == 0) == (kind == "without sync")  # a parameter of one row on two processes


def test_half_precision(report):
    forward, parameters = report["half precision"]["forward"], report["half precision"]["parameters"]
    assert forward["gradients"] == ["torch.float32"]
    assert parameters["gradients"] == ["torch.bfloat16"]
    assert forward["added"] <= 8 * 2.0**-23
    assert parameters["added"] <= 2.0**-8
    assert forward["finite"]
    assert parameters["finite"]


def test_charges_decay_as_on_one_device(report):
    mine, theirs = report["charges"]
    assert mine == pytest.approx(theirs, rel=1e-12)
    assert mine[0] == pytest.approx(mine[1], rel=0.01)


@pytest.mark.parametrize("kind", [0, 1], ids=["one file a process", "one file"])
def test_a_checkpoint_resumes_bit_by_bit(report, kind):
    found = report["resumed"][kind]
    assert found["same"]
    assert found["moments"] == 10
    assert found["calls"][0] == found["calls"][1] == {"0": 3}
    assert found["steps"][0] == found["steps"][1] == [0, 3]
    assert found["charges"][0] == found["charges"][1]
    assert found["drifts"][0] == found["drifts"][1]
    assert found["recognised"]  # the parameters of the checkpoint were compared, and do not bind another fit


REFUSED = {
    "path_norm": "a term that is computed on shards .* got 'path_norm', .* Take one of 'balance', 'charge'",
    "reference": "a term that is computed on shards .* got 'reference'",
    "vertical fraction": "got ModelParallelStrategy: VerticalFraction as it is set does not work on shards",
    "HSDP": r"rows on one mesh dimension, Shard\(0\), for 'net.0.weight', got R, S\(0\). Shard with fully_shard",
    "HSDP, projected": r"for 'net.0.weight', got R, S\(0\)",
    "tensor parallel": "tensor_parallel_size=1 for ModelParallelStrategy, got 2",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_before_training(report, kind):
    for message, batches in report["refused"][kind]:
        assert batches == 0
        assert re.search(REFUSED[kind], message)
