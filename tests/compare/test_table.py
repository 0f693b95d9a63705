"""The table: its numbers are those of the summaries, its marks are right."""

import csv
import io
import json
from statistics import fmean, stdev

import pytest

from gaugefix.compare.results import load
from gaugefix.compare.results_csv import results_csv
from gaugefix.compare.table import Cell, mark_best, plus_minus, tables
from gaugefix.compare.table_md import escaped, table_md
from tests.compare.made import made, results


def column(table, heading):
    place = table.headings.index(heading)
    return {row.method: row.cells[place] for row in table.rows}


def test_the_numbers_are_those_of_the_summaries(grid):
    for table in tables(load(grid)):
        assert [row.method for row in table.rows] == ["baseline", "minimal_norm"]
        for method in ("baseline", "minimal_norm"):
            files = [grid / "runs" / f"{method}-lr0.02-{table.start}-s{k}" / "summary.json" for k in (0, 1)]
            read = [json.loads(file.read_text()) for file in files]
            for key, heading in (("val_acc_best", "val acc, best"), ("gauge_drift_final", "drift, final")):
                values = [one[key] for one in read]
                assert column(table, heading)[method].value == fmean(values)
                assert column(table, heading)[method].text == plus_minus(fmean(values), stdev(values))
            assert column(table, "best lr")[method] == Cell("0.02", 0.02)
            assert column(table, "largest stable lr")[method].value == 0.02
            assert column(table, "diverged")[method].text == "2 of 4"
            assert column(table, "seeds")[method].text == "2"
            assert column(table, "step overhead")[method].text.endswith(" %")


def test_diverged_and_failed_runs_are_counted_and_a_method_without_a_result_is_shown():
    lost = [made("lost", 0.1, seed, diverged=True) for seed in range(3)]
    broken = made("a", 0.1, 1, status="failed", error="no memory.")
    found = results(made("a", 0.1, val_acc_best=0.5), broken, *lost)
    (table,) = tables(found)
    assert column(table, "diverged")["lost"].text == "3 of 3"
    assert column(table, "failed")["a"].text == "1 of 2"
    assert column(table, "val acc, best")["lost"] == Cell("–")
    assert column(table, "largest stable lr")["lost"].text == "none"
    assert "3 diverged, 0 had not learned, 1 failed." in table_md(found)
    assert "- Failed: a, learning rate 0.1, balanced start, seed 1: no memory.\n" in table_md(found)


def test_one_seed_has_no_spread():
    (table,) = tables(results(made("a", 0.1, val_acc_best=0.512345)))
    assert column(table, "val acc, best")["a"].text == "0.512"
    assert "- n = 1 seed: no spread.\n" in table_md(results(made("a", 0.1, val_acc_best=0.5)))


@pytest.mark.parametrize(
    ("mean", "spread", "text"),
    [
        (0.98123, 0.0042, "0.981 ± 0.004"),
        (0.98123, 0.0, "0.981 ± 0.000"),
        (17.52, 0.264, "17.5 ± 0.3"),
        (117.9, 3.3, "118 ± 3"),
        (0.0019, 0.00103, "0.0019 ± 0.0010"),
        (1.5933e-6, 9.5e-9, "(1.59 ± 0.01)e-06"),
        (2.0e10, 3.0e11, "(0.2 ± 3.0)e+11"),
        (-0.5, 0.25, "-0.50 ± 0.25"),
        (0.0, 0.0, "0.00 ± 0.00"),
        (0.0, None, "0.00"),
        (32.0, None, "32.0"),
        (1.15e-5, None, "1.15e-05"),
    ],
)
def test_mean_and_spread_have_the_digits_that_say_something(mean, spread, text):
    assert plus_minus(mean, spread) == text


@pytest.mark.parametrize(
    ("values", "more", "best"),
    [
        ([0.1, 0.3, None], True, [1]),
        ([0.1, 0.3, None], False, [0]),
        ([0.3, 0.1, 0.3], True, [0, 2]),
        ([0.3, 0.3], True, []),
        ([None, None], True, []),
    ],
)
def test_the_best_is_marked(values, more, best):
    cells = mark_best([Cell("–" if v is None else f"{v}", v) for v in values], more)
    assert [k for k, cell in enumerate(cells) if cell.best] == best


def test_csv_has_a_line_for_each_run(grid):
    found = load(grid)
    rows = list(csv.DictReader(io.StringIO(results_csv(found))))
    assert list(rows[0])[:7] == ["recipe", "method", "start", "lr", "seed", "outcome", "learned"]
    assert list(rows[0])[7:] == sorted(list(rows[0])[7:])
    assert [(row["method"], row["start"], float(row["lr"]), int(row["seed"])) for row in rows] == [
        (run.method, run.start, run.lr, run.seed) for run in found.runs
    ]
    assert {row["outcome"] for row in rows} == {"finished", "diverged"}
    assert rows[0]["widths"] == "32 32"
    assert float(rows[0]["val_acc_best"]) == found.runs[0].summary["val_acc_best"]


def test_markdown_cannot_be_broken_by_a_name():
    assert escaped("a|b\n*c* <i>") == r"a\|b \*c\* \<i\>"
    text = table_md(results(made("a|b", 0.1, val_acc_best=0.5), command="run `it`\n```"))
    (row,) = [line for line in text.splitlines() if line.startswith(r"| a\|b")]
    heading = next(line for line in text.splitlines() if line.startswith("| method"))
    assert row.replace(r"\|", "").count("|") == heading.count("|")
    assert "````bash\nrun `it`\n```\n````\n" in text
