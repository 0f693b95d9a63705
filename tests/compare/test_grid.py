"""Grids: which runs they have, in which order, and what is refused before anything is run."""

import pytest

from gaugefix.compare.grid import GridError, length, make_grid
from gaugefix.compare.meter import duration
from gaugefix.compare.record import alone, describe, make, open_record, read_record
from gaugefix.demo.run_directory import OutputError


def test_one_seed_is_whole_before_the_next_begins():
    grid = make_grid("feedforward", ("baseline", "charge"), (0.1, 1.0), (5, 7), ("balanced", "unbalanced"))
    names = [run.name for run in grid.runs]
    assert len({*names}) == len(names) == 16
    assert names[:3] == [
        "baseline-lr0.1-balanced-s5",
        "charge-lr0.1-balanced-s5",
        "baseline-lr1-balanced-s5",
    ]
    assert {name[-2:] for name in names[:8]} == {"s5"}


def test_the_learning_rate_is_that_of_the_configuration_by_default():
    assert make_grid("transformer").lrs == (0.003,)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"recipe": "feedfoward"}, "got 'feedfoward'. Did you mean 'feedforward'? Available: feedforward, neural_ode"),
        ({"recipe": "quantization"}, "Expected the name of a recipe to compare on, got 'quantization'."),
        ({"methods": ("charge:1e-3", "charge:0.001")}, "got 'charge:1e-3' and 'charge:0.001', which are the same"),
        ({"config": "configs/none.yaml"}, "Expected a file for --config, got 'configs/none.yaml'. Available: configs/"),
        ({"settings": ("model.lr=3",)}, "got 'model.lr'. It has an option of its own: --lrs."),
        ({"settings": ("momentum",)}, "Expected key=value for --set, got 'momentum'."),
    ],
)
def test_what_cannot_be_run_is_refused(given, message):
    with pytest.raises(GridError) as caught:
        make_grid(**{"recipe": "feedforward", **given})
    assert message in str(caught.value)


@pytest.mark.parametrize(("steps", "interval"), [(5, 5), (20, 20), (24, 24), (990, 30), (1000, 25), (97, 97)])
def test_the_last_step_is_validated(steps, interval):
    assert f"--trainer.val_check_interval={interval}" in length(steps, {})
    assert steps % interval == 0


def test_a_configuration_keeps_its_own_interval_where_it_can():
    assert "--trainer.val_check_interval=100" in length(1000, {"trainer": {"val_check_interval": 100}})
    assert "--trainer.val_check_interval=110" in length(330, {"trainer": {"val_check_interval": 100}})
    assert length(None, {}) == []


def test_a_comparison_grows_and_is_not_mixed_with_another(tmp_path):
    def opened(line, **given):
        return open_record(tmp_path, describe(make_grid("feedforward", **given), line))

    first = opened("one", methods=("baseline",), max_steps=9)
    assert (first["monitor"], first["monitor_mode"]) == ("val/acc", "max")
    grown = opened("two", methods=("charge", "baseline"), lrs=(0.5,), seeds=(0, 9), max_steps=9)
    assert grown["methods"] == ["baseline", "charge"]
    assert (grown["lrs"], grown["seeds"]) == ([0.03, 0.5], [0, 1, 2, 9])
    assert grown["command"] == "one\ntwo"
    assert grown["environment"] == first["environment"]
    assert opened("one", methods=("baseline",), max_steps=9)["command"] == "one\ntwo"

    with pytest.raises(GridError, match=r"--max-steps was 9 and is 8; --set was .* and is .*'model.momentum=0.5'"):
        opened("three", max_steps=8, settings=("model.momentum=0.5",))
    assert read_record(tmp_path / "grid.json") == grown


def test_a_method_whose_meaning_changed_is_another(tmp_path, monkeypatch):
    open_record(tmp_path, describe(make_grid("feedforward", ("charge",)), ""))
    monkeypatch.setitem(make_grid.__globals__["parse_method"].__globals__["STRENGTHS"], "charge", 7.0)
    with pytest.raises(GridError, match=r"the method charge was .* and is .*'strength': 7\.0"):
        open_record(tmp_path, describe(make_grid("feedforward", ("charge",)), ""))


def test_a_directory_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(GridError, match=r"it has no grid\.json"):
        open_record(tmp_path, describe(make_grid("feedforward"), ""))
    (tmp_path / "grid.json").write_text("[1]")
    with pytest.raises(GridError, match="Expected a JSON object"):
        open_record(tmp_path, describe(make_grid("feedforward"), ""))


def test_one_comparison_at_a_time_is_at_work_in_a_directory(tmp_path):
    with alone(tmp_path), pytest.raises(GridError, match="where no other comparison is at work"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"Expected a directory to write results to, got '.*file/out'"):
        make(tmp_path / "file" / "out")


def test_a_time_is_said_in_two_units():
    assert [duration(seconds) for seconds in (0.2, 59.4, 59.6, 3599, 3600, 90000)] == [
        "0 s", "59 s", "1 min 00 s", "59 min 59 s", "1 h 00 min", "25 h 00 min"
    ]  # fmt: skip
