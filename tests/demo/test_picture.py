"""The picture of runs: with and without a measured drift."""

import json

import pytest

from gaugefix.demo.picture import STYLES, draw, style_of, styles_of

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


def line(style):
    return style["color"], style["linestyle"]


def marker(style):
    return style["marker"], style.get("fillstyle", "full")


def test_styles_can_be_told_apart():
    """By colour, and without it by the marker."""
    assert len({style["color"] for style in STYLES.values()}) == len(STYLES)
    assert len({marker(style) for style in STYLES.values()}) == len(STYLES)


def test_the_baseline_alone_is_grey_and_dashed():
    assert line(STYLES["baseline"]) == ("#7f7f7f", "--")
    assert [name for name, style in STYLES.items() if style["linestyle"] == "--"] == ["baseline"]


def test_every_method_of_the_library_has_a_style():
    from gaugefix.regularizers import term_names
    from gaugefix.slices import slice_names

    terms = {f"soft_{name}" if name in slice_names() else name for name in term_names()}
    assert not (set(slice_names()) | terms) - set(STYLES)


@pytest.mark.parametrize("method", ["cnn_minimal_norm", "minimal_norm@1", "minimal_norm:0.1@2"])
def test_a_setting_keeps_the_style_of_its_method(method):
    assert style_of(method) == STYLES["minimal_norm"]
    assert styles_of([method]) == {method: STYLES["minimal_norm"]}


@pytest.mark.parametrize("method", ["minimal_norm@1", "minimal_norm+weight_decay:1e-3"])
def test_beside_its_method_a_variant_is_another_shade(method):
    hue = [int(styles_of([method, "minimal_norm"])[method]["color"][k : k + 2], 16) for k in (1, 3, 5)]
    assert hue != [0x00, 0x72, 0xB2]
    assert sorted(range(3), key=hue.__getitem__) == [0, 1, 2]  # blue before green before red, as in #0072b2


def test_methods_of_one_comparison_never_look_alike():
    own = list(STYLES)[:12]
    methods = [*(f"minimal_norm@{k}" for k in range(4)), *own, "unknown", "other", "flat+weight_decay:1e-3"]
    styles = styles_of(methods)
    assert all(styles[name] == STYLES[name] for name in own)
    assert len({line(style) for style in styles.values()}) == len(methods)
    assert len({marker(style) for style in styles.values()}) == len(methods)


def test_more_methods_than_looks_still_have_one_each():
    methods = [f"minimal_norm@{k}" for k in range(200)]
    assert list(styles_of(methods)) == methods


def test_an_unknown_name_looks_the_same_in_every_process():
    """A golden value: Python's own hash of a string differs from process to process."""
    drawn = {"color": "#425d9f", "linestyle": (0, (1, 1)), "marker": "v", "fillstyle": "none"}
    assert style_of("unknown") == drawn
