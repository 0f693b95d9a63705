"""The four files: what is in them, that they are the same every time, and that nothing breaks them."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from gaugefix.compare.report import write_report
from gaugefix.compare.results import ResultsError
from tests.compare.made import write_run

FILES = ("report.html", "report.png", "results.csv", "table.md")
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Collects elements, checks that they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} twice"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def data_of(path) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(encoding="utf-8"))
    return json.loads(text)


def panels_of(path) -> list[str | None]:
    return [figure["id"] for figure in read(path).all("figure")]


def two_methods(place, second="minimal_norm", rows=(), **more):
    rows = list(rows) or [{"step": step, "val/loss": 1 / (1 + step)} for step in range(5)]
    for method in ("baseline", second):
        for seed in (0, 1):
            number = len(list(place.glob("*"))) if place.exists() else 0
            write_run(place / f"{number}", rows, method=method, lr=0.1, seed=seed, val_acc_best=0.5, **more)
    return place


def test_the_four_files_are_there_and_the_path_of_the_page_comes_back(report, grid):
    assert report == grid / "report.html"
    assert all((grid / name).stat().st_size > 1000 for name in FILES)
    assert not list(grid.glob("*.part"))
    assert (grid / "report.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_runs_give_the_same_bytes(report, grid, tmp_path):
    elsewhere = shutil.copytree(grid, tmp_path / "elsewhere", ignore=shutil.ignore_patterns(*FILES))
    write_report(elsewhere)
    for name in FILES:
        assert (elsewhere / name).read_bytes() == (grid / name).read_bytes(), name


def test_every_panel_has_its_sentence_and_its_description(report):
    page = read(report)
    assert panels_of(report) == ["curves", "heatmap", "residual", "lr_map", "pareto", "parallel"]
    assert page.text.count("Look for ") >= 6
    plots = [svg for svg in page.all("svg") if svg.get("aria-hidden") != "true"]
    assert len(plots) == 6
    assert all(svg["role"] == "img" and "Look for" in svg["aria-label"] for svg in plots)
    assert page.all("html")[0]["lang"] == "en"
    assert "<title>feedforward: 2 methods compared</title>" in report.read_text()


def test_names_are_unique_and_what_is_referred_to_is_there(report):
    text = report.read_text()
    names = [attributes["id"] for _, attributes in read(report).elements if "id" in attributes]
    assert len(names) == len(set(names))
    referred = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)|aria-(?:labelledby|describedby)="([^"]+)"', text)
    assert {a or b or c for a, b, c in referred} <= set(names)
    assert referred


def test_nothing_is_fetched(report):
    for _, attributes in read(report).elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|WebSocket|import\(", report.read_text())
    (policy,) = [m["content"] for m in read(report).all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_the_embedded_numbers_are_those_of_the_files(report, grid):
    data = data_of(report)
    assert data["methods"] == ["baseline", "minimal_norm"]
    losses = next(probe for probe in data["panels"]["curves"] if probe["title"] == "validation loss, balanced start")
    index, steps, mean, low, high = losses["curves"][1]
    assert index == 1
    read = []
    for seed in (0, 1):
        lines = (grid / "runs" / f"minimal_norm-lr0.02-balanced-s{seed}" / "metrics.jsonl").read_text().splitlines()
        read.append({row["step"]: row["val/loss"] for row in map(json.loads, lines) if "val/loss" in row})
    assert steps == sorted(read[0])
    for k, step in enumerate(steps):
        values = [one[step] for one in read]
        assert (low[k], high[k]) == pytest.approx((min(values), max(values)), rel=1e-2)
        assert mean[k] == pytest.approx(sum(values) / 2, rel=1e-2)


def test_diverged_cells_are_hatched(report):
    cells = [mark for probe in data_of(report)["panels"]["lr_map"] for mark in probe["marks"]]
    assert len(cells) == 8
    assert sum("diverged, diverged" in cell[3] for cell in cells) == 4
    svg = re.search(r'<figure id="lr_map".*?</figure>', report.read_text(), re.DOTALL)[0]
    assert len(re.findall(r"fill:url\(#lr_map-h", svg)) == 4


def test_no_name_breaks_the_page(tmp_path):
    names = ['<script>alert("x")</script>', "a&b", "</script><b>", "a|b", "$x_y$", "Ünïcode ‖", "}}{{", "'\"`"]
    rows = [{"step": step, "val/loss": 1 / (1 + step)} for step in range(5)]
    for k, name in enumerate(names):
        write_run(tmp_path / "runs" / f"{k}", rows, method=name, lr=0.1, seed=0, val_acc_best=0.5)
    report = write_report(tmp_path)
    assert sorted(data_of(report)["methods"]) == sorted(names)
    page = read(report)
    assert not [name for name in names if page.text.count(name) < 3]  # legend, table, map
    assert len(page.all("script")) == 2
    assert len(page.all("button")) == len(names) + 1 + len([th for th in page.all("th") if th["scope"] == "col"])


def test_a_neural_ode_shows_its_evaluations_and_one_seed_says_so(plain_runs, tmp_path):
    report = write_report(shutil.copytree(plain_runs, tmp_path / "runs"))
    assert panels_of(report) == ["curves", "heatmap", "residual", "lr_map", "nfe", "pareto"]
    figures = re.findall(r"<figcaption.*?</figcaption>", report.read_text())
    assert len(figures) == 6
    assert all("n = 1 seed: no spread." in caption for caption in figures)
    marks = [mark[3] for probe in data_of(report)["panels"]["nfe"] for mark in probe["marks"]]
    assert marks[:2] == ["baseline: 8.00", "kinetic: 8.00"]


def test_runs_without_a_drift(tmp_path):
    two_methods(tmp_path / "runs")
    assert panels_of(write_report(tmp_path)) == ["curves", "lr_map"]


def test_one_method_one_run_and_no_metrics(tmp_path):
    write_run(tmp_path / "runs" / "a", [], method="baseline", lr=0.1, seed=0, val_acc_best=0.5)
    assert panels_of(write_report(tmp_path)) == ["lr_map"]


def test_a_single_measurement(tmp_path):
    rows = [{"step": 0, "val/loss": 1.0, "gauge/drift": 0.0, "gauge/residual": 0.0, "gauge/a:scale/drift": 0.0}]
    two_methods(tmp_path / "runs", rows=rows)
    assert panels_of(write_report(tmp_path)) == ["curves", "heatmap", "residual", "lr_map"]


def test_all_diverged(tmp_path):
    rows = [{"step": 9, "train/loss": None, "val/loss": None}]
    two_methods(tmp_path / "runs", rows=rows, diverged=True)
    report = write_report(tmp_path)
    assert panels_of(report) == ["lr_map"]
    assert read(report).text.count("2 of 2") == 2


def test_a_failed_run_is_named_with_its_error(tmp_path):
    two_methods(tmp_path / "runs", status="failed", error="out of <memory>.")
    assert read(write_report(tmp_path)).text.count("2 runs: out of <memory>.") == 2


def test_no_learning_rate(tmp_path):
    for method in ("baseline", "flat"):
        rows = [{"step": step, "val/loss": 1.0} for step in range(3)]
        write_run(tmp_path / "runs" / method, rows, method=method, val_loss_best=0.5, seed=0)
    assert panels_of(write_report(tmp_path)) == ["curves"]


def test_nothing_to_report_on_writes_nothing(tmp_path):
    with pytest.raises(ResultsError):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_table_is_there(own_grid, monkeypatch):
    from gaugefix.compare.figures import canvas
    from gaugefix.demo.extras import MissingExtraError

    def missing(distribution, what):
        raise MissingExtraError(f"Expected the package {distribution}")

    for name in FILES:
        (own_grid / name).unlink(missing_ok=True)
    monkeypatch.setattr(canvas, "require", missing)
    with pytest.raises(MissingExtraError):
        write_report(own_grid)
    assert (own_grid / "results.csv").exists()
    assert (own_grid / "table.md").exists()


def test_a_large_grid_stays_small(tmp_path):
    """Eight methods, three rates, two starts, curves of 400 points."""
    layers = {f"gauge/net.{k}:scale/drift": 0.1 * (k + 1) for k in range(4)}
    for k, start in enumerate(("balanced", "unbalanced")):
        for m, method in enumerate(["baseline", *(f"method{m}" for m in range(7))]):
            for lr in (0.01, 0.03, 0.1):
                ends = {"val_acc_best": 0.5 + 0.1 * (lr == 0.03), "gauge_drift_final": 1.0 + m, "overhead_pct": 1.0 + m}
                for seed in (0, 1):
                    rows = [
                        {"step": s, "val/loss": 1 / (1 + s + m + seed), "gauge/drift": 1 + s / 7 + k, **layers}
                        for s in range(400 if lr == 0.03 else 1)
                    ]
                    place = tmp_path / "runs" / f"{start}-{method}-{lr}-{seed}"
                    write_run(place, rows, method=method, lr=lr, seed=seed, start=start, **ends)
    assert write_report(tmp_path).stat().st_size < 350_000
