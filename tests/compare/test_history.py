"""Curves: damaged files, means over seeds, thinning."""

import json

import numpy as np
import pytest

from gaugefix.compare.history import average, average_of, read_rows, series, thin
from tests.compare.made import made


def test_a_line_that_a_killed_run_left_half_is_skipped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0}\n{"step": 2, "train/lo')
    assert series(read_rows(tmp_path), "train/loss") == {1: 2.0}


@pytest.mark.parametrize("text", ["", "\n", "[]\n", "null\n", '{"train/loss": 1.0}\n', "\x00\xff"])
def test_lines_that_are_no_rows_are_skipped(tmp_path, text):
    (tmp_path / "metrics.jsonl").write_text(text)
    assert read_rows(tmp_path) == []


def test_no_file_has_no_rows(tmp_path):
    assert read_rows(tmp_path) == []


def test_null_is_no_value_and_the_last_of_a_step_counts():
    rows = [{"step": 9, "a": 1.0}, {"step": 3, "a": None}, {"step": 2, "a": 5.0}, {"step": 9, "a": 2.0}, {"step": 4}]
    assert series(rows, "a") == {2: 5.0, 9: 2.0}
    assert list(series(rows, "a")) == [2, 9]


def test_the_mean_is_over_steps_that_all_seeds_have(tmp_path):
    for seed, values in enumerate([{0: 1.0, 5: 3.0, 9: 4.0}, {0: 3.0, 5: 9.0}, {}]):
        place = tmp_path / str(seed)
        place.mkdir()
        (place / "metrics.jsonl").write_text(
            "".join(json.dumps({"step": step, "a": value}) + "\n" for step, value in values.items())
        )
    curve = average([made("m", 0.1, seed, directory=tmp_path / str(seed)) for seed in range(3)], "a")
    assert curve.steps.tolist() == [0, 5]
    assert (curve.mean.tolist(), curve.low.tolist(), curve.high.tolist()) == ([2.0, 6.0], [1.0, 3.0], [3.0, 9.0])
    assert curve.seeds == 2


def test_no_common_step_is_no_curve():
    assert average_of([{1: 1.0}, {2: 1.0}]) is None
    assert average_of([]) is None


@pytest.mark.parametrize("length", [2, 60, 61, 1000])
def test_thinning_keeps_the_ends_and_the_order(length):
    curve = average_of([{step: step / 7 for step in range(length)}])
    kept = thin(curve, 60)
    assert len(kept.steps) == min(length, 60)
    assert (kept.steps[0], kept.steps[-1]) == (0, length - 1)
    assert (np.diff(kept.steps) > 0).all()
    assert np.array_equal(kept.mean, kept.steps / 7)
