from gaugefix.demo.run_table import print_runs, shown


def test_a_column_that_no_run_has_is_left_out(capsys):
    print_runs({"baseline": {"val_loss_final": 0.5, "invariance_error_max": None}})
    first, headings, row = (line.split() for line in capsys.readouterr().out.splitlines())
    assert (first, headings, row) == (["val", "invariance"], ["method", "loss", "error"], ["baseline", "0.500", "–"])


def test_what_one_run_has_is_a_column_for_all(capsys):
    print_runs({"a": {"val_acc_best": 0.25}, "b": {"seconds": 3.2}})
    *_, a, b = (line.split() for line in capsys.readouterr().out.splitlines())
    assert (a, b) == (["a", "0.250", "–"], ["b", "–", "3", "s"])


def test_nan_is_no_number():
    assert (shown(float("nan"), "{:.1f}"), shown(None, "{:.1f}"), shown(2.0, "{:.1f}")) == ("–", "–", "2.0")
