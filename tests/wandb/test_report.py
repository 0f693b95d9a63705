"""The report on W&B: what is saved has the panels of the local report, and every lack has its mend."""

import json
import re
import sys

import pytest

from gaugefix.compare.wandb_report import WandbReportError, parse_where, write_wandb_report
from gaugefix.demo.extras import MissingExtraError
from tests.wandb.records import Run

pytest.importorskip("wandb_workspaces")
# wandb-workspaces still declares its validators as pydantic 1 had them.
pytestmark = pytest.mark.filterwarnings(r"ignore:Pydantic V1 style:DeprecationWarning:wandb_workspaces")


@pytest.fixture
def runs(backend):
    """A project with a run."""
    backend.runs["a"] = Run("a", project="gaugefix", group="feedforward/charge")
    return backend


def grids(view):
    """Heading → the panel grid below it."""
    blocks = json.loads(view["spec"])["blocks"]
    found, heading = {}, ""
    for block in blocks:
        if block["type"] == "heading":
            heading = block["children"][0]["text"]
        elif block["type"] == "panel-grid":
            found[heading] = block["metadata"]
    return found


def panels(grid):
    return [(panel["viewType"], panel["config"]) for panel in grid["panelBankSectionConfig"]["panels"]]


def filters(grid):
    """Key → value of the filters of a grid's runs, nested ones included."""

    def flat(items):
        for item in items:
            yield from flat(item["filters"]) if "filters" in item else [(item["key"]["name"], item["value"])]

    return list(flat(grid["runSets"][0]["filters"]["filters"]))


def test_the_saved_report_has_the_panels_of_the_local_one(runs):
    address = write_wandb_report("gaugefix")
    (view,) = runs.views
    assert address.startswith(f"{runs.url}/somebody/gaugefix/reports/gaugefix:-gaugefix--")
    assert (view["entityName"], view["projectName"], view["type"]) == ("somebody", "gaugefix", "runs")
    saved = grids(view)
    assert list(saved) == ["Runs", "Loss", "Gauge", "Learning rate × method", "Cost", "Local report"]

    table = saved["Runs"]["runSets"][0]
    assert table["project"]["entityName"] == "somebody"
    assert table["grouping"] == [{"section": "run", "name": "group"}]
    assert {"config:lr.value", "summary:gauge_drift_final", "summary:diverged"} < set(table["runFeed"]["columnOrder"])
    assert "Run Comparer" in dict(panels(saved["Runs"]))

    *curves, symmetries = [config for kind, config in panels(saved["Loss"]) + panels(saved["Gauge"])]
    assert [config["metrics"] for config in curves] == [
        ["val/loss"],
        ["train/loss"],
        ["val/acc"],
        ["gauge/drift"],
        ["gauge/residual"],
        ["gauge/drift_before"],
        ["gauge/drift_after"],
    ]
    for config in curves:
        assert config["xAxis"] == "trainer/global_step"
        assert config["groupBy"] == "group"
        assert config["aggregate"]
        assert config["yLogScale"] == (config["metrics"] != ["val/acc"])

    assert symmetries["useMetricRegex"]
    assert re.fullmatch(symmetries["metricRegex"], "gauge/net.0:scale/drift")

    rates = panels(saved["Learning rate × method"])
    across = [(config["xAxis"], config["yAxis"]) for kind, config in rates if kind == "Scatter Plot"]
    assert across == [("config:lr.value", "summary:val_loss_final"), ("config:lr.value", "summary:gauge_drift_final")]
    (columns,) = [config["columns"] for kind, config in rates if kind == "Parallel Coordinates Plot"]
    assert [column["accessor"] for column in columns[:3]] == [
        "config:method.value",
        "config:lr.value",
        "config:start.value",
    ]

    assert [config["metrics"] for kind, config in panels(saved["Cost"]) if kind == "Bar Chart"] == [
        ["overhead_pct"],
        ["nfe"],
    ]
    ((kind, config),) = panels(saved["Local report"])
    assert (kind, config["mediaKeys"]) == ("Media Browser", ["report"])
    assert filters(saved["Local report"]) == [("jobType", "report")]


def test_groups_and_settings_choose_the_runs(runs):
    write_wandb_report(
        "somebody/gaugefix", ["feedforward/charge", "transformer"], {"lr": 0.03, "start": "unbalanced"}, "Mine"
    )
    (view,) = runs.views
    assert view["displayName"] == "Mine"
    saved = grids(view)
    chosen = [("group", "feedforward/charge"), ("recipe", "transformer"), ("lr", 0.03), ("start", "unbalanced")]
    for heading in ("Runs", "Loss", "Gauge", "Learning rate × method", "Cost"):
        assert filters(saved[heading]) == chosen
    either = saved["Runs"]["runSets"][0]["filters"]["filters"][0]["filters"]
    assert either[1]["connector"] == "OR"
    pages = [("jobType", "report"), ("group", "feedforward/compare"), ("group", "transformer/compare")]
    assert filters(saved["Local report"]) == pages


def test_without_a_login_it_says_so(nobody, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody is to be asked
    with pytest.raises(WandbReportError, match=r"^Expected a W&B login .* Run 'wandb login', or set WANDB_API_KEY\."):
        write_wandb_report("gaugefix")


def test_a_project_that_is_not_there_is_not_made(runs):
    with pytest.raises(WandbReportError, match=r"'somebody/gaugefox', got: .* not found\. .* or 'wandb sync'\.$"):
        write_wandb_report("gaugefox")
    assert not runs.views


@pytest.mark.parametrize("name", ["", "a/b/c", "/a", "a/"])
def test_a_project_is_named_by_one_or_two_words(name):
    with pytest.raises(WandbReportError, match=rf"^Expected project or entity/project .*, got '{name}'\.$"):
        write_wandb_report(name)


def test_without_the_extra_it_has_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(MissingExtraError, match=r'Install it: pip install "wandb\S*" "wandb-workspaces\S*"$'):
        write_wandb_report("gaugefix")


def test_settings_are_read_as_typed():
    assert parse_where(["lr = 1e-3", "seed=2", "diverged=true", "method=minimal_norm@1", "slice=null"]) == {
        "lr": 1e-3,
        "seed": 2,
        "diverged": True,
        "method": "minimal_norm@1",
        "slice": None,
    }
    with pytest.raises(WandbReportError, match=r"got 'lr'\. Write it like lr=0\.03\.$"):
        parse_where(["lr"])
