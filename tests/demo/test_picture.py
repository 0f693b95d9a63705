"""The picture of runs: with and without a measured drift."""

import json

import pytest

from gaugefix.demo.picture import STYLES, draw

HEIGHT = slice(20, 24)  # of a PNG file


def write(directory, rows):
    directory.mkdir()
    lines = [json.dumps({"step": step, **row}) for step, row in enumerate(rows)]
    (directory / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


LOSSES = [{"train/loss": 2.0, "val/loss": 1.5}, {"train/loss": 1.0, "val/loss": 0.9}]
DRIFTS = [{**row, "gauge/drift": 0.5} for row in LOSSES]


@pytest.mark.parametrize("rows", [LOSSES, DRIFTS], ids=["no drift", "drift"])
def test_a_run(tmp_path, rows):
    picture = draw({"baseline": write(tmp_path / "a", rows)}, tmp_path / "picture.png", "a title")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_panel_is_there_for_drift_that_some_run_has_measured(tmp_path):
    """Twice as high, about, as losses alone."""
    losses, drifts = write(tmp_path / "a", LOSSES), write(tmp_path / "b", DRIFTS)
    heights = []
    for runs in ({"baseline": losses}, {"baseline": losses, "minimal_norm": drifts}):
        data = draw(runs, tmp_path / "picture.png", "a title").read_bytes()
        heights.append(int.from_bytes(data[HEIGHT], "big"))
    assert heights[1] > 1.4 * heights[0]


def test_styles_can_be_told_apart():
    assert len({style["color"] for style in STYLES.values()}) == len(STYLES)
