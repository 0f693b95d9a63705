"""The picture of Noether charges: what is read from a run, and that it is drawn."""

import json

import pytest

from gaugefix.demo.charges import charge_names, deviations, draw_charges

ROWS = [
    {"step": 0, "gauge/charge": 4.0, "gauge/charge_predicted": 4.0, "gauge/a/charge": 3.0},
    {"step": 5, "train/loss": 1.0, "gauge/charge/vertical_fraction": 0.5},
    {"step": 10, "gauge/charge": 2.2, "gauge/charge_predicted": 2.0, "gauge/a/charge": 1.0},
    {"step": 20, "gauge/charge": 1.0, "gauge/charge_predicted": 0.0},
]


def run(folder, rows):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_what_is_read_from_a_run(tmp_path):
    metrics = run(tmp_path, ROWS) / "metrics.jsonl"
    assert charge_names(metrics) == ["gauge", "gauge/a"]
    steps, values = deviations(metrics)
    assert steps == [0, 10]
    assert values == pytest.approx([0.0, 0.1])
    assert deviations(metrics, "gauge/a") == ([], [])


@pytest.mark.parametrize("lawful", [True, False])
def test_a_picture_with_or_without_a_law(tmp_path, lawful):
    kept = [{k: v for k, v in row.items() if lawful or not k.endswith("predicted")} for row in ROWS]
    picture = draw_charges(run(tmp_path, kept), tmp_path / "charges.png", "a run")
    assert picture.read_bytes().startswith(b"\x89PNG")
    height = int.from_bytes(picture.read_bytes()[20:24], "big")
    assert (height > 700) == lawful  # one panel or two


def test_no_charges_no_picture(tmp_path):
    assert draw_charges(run(tmp_path, [{"step": 0, "train/loss": 1.0}]), tmp_path / "charges.png", "") is None
    assert not (tmp_path / "charges.png").exists()
