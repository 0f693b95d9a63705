"""The command that measures speed runs, and its page holds what was asked for."""

import re

import pytest

from tests.benchmarks.__main__ import main
from tests.benchmarks.ratio import pairs
from tests.benchmarks.step_overhead import Overhead


def rows(text: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in text.splitlines() if "|" in line]
    return {first: rest for first, *rest in cells}


def test_a_quick_measurement_writes_its_page(tmp_path):
    page = tmp_path / "speed.md"
    main(["--quick", "--only", "mlp", "--what", "projection,drift,memory", "--rounds", "2", "--out", str(page)])
    found = rows(page.read_text(encoding="utf-8"))
    for label in ("floor, again", "`project_`, on the slice", "`project_`, from 0.01", "`drift`"):
        milliseconds, ratio, quartiles, count = found[label][:4]
        assert float(milliseconds) > 0.0
        assert float(ratio) > 0.0
        assert re.fullmatch(r"\d+\.\d\d-\d+\.\d\d", quartiles)
        assert int(count) == 2
    at_most, stays = (float(found["MLP 784-500×5-10: first `project_`"][k]) for k in (1, 3))
    assert at_most >= stays > 0.0
    copied = float(found["MLP 784-500×5-10: in `GaugeProjection`, with AdamW's state and gradients"][2])
    assert copied > 4.0  # parameters, gradients and two moments
    assert "discovery" not in found


@pytest.mark.parametrize("argument", ["--only=vgg", "--what=colours", "--rounds=0"])
def test_a_wrong_choice_is_refused(argument, capsys):
    with pytest.raises(SystemExit):
        main([argument])
    assert "expected" in capsys.readouterr().err or argument == "--rounds=0"


def test_pairs_alternate_and_begin_where_they_should():
    order: list[str] = []
    found = pairs(lambda: order.append("a"), lambda: order.append("b"), 4, 0, before=lambda: order.append("-"))
    assert "".join(order) == "-abb-a-abb-a"
    assert found.rounds == 4
    assert found.low <= found.ratio <= found.high


def test_the_overhead_by_parts_is_a_share_of_a_step():
    overhead = Overhead(step=0.01, wall=0.0, cpu=0.0, hooks=2e-5, action=0.016, actions=5, steps=1000, discovery=0.0)
    assert overhead.by_parts == pytest.approx(0.01)
