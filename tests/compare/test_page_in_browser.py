"""report.html in a real browser: it asks for nothing, and its buttons, tables and read-outs work."""

import pytest

from tests.compare.browser import NAMES, browse, find_browser

BROWSER = find_browser()
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(NAMES)} is in PATH")

VISIBLE = """(selector) => [...document.querySelectorAll(selector)].filter(
  (e) => { const box = e.getBoundingClientRect(); return box.width > 0 && box.height > 0; }).length"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browse(BROWSER, tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(browser, report):
    browser.open(report)
    yield browser
    assert browser.complaints() == []
    assert browser.requests() == []


def visible(tab, selector: str) -> int:
    return tab.evaluate(f"({VISIBLE})({selector!r})")


def rows(tab, table: int = 0) -> list[str]:
    body = f"document.querySelectorAll('table.results')[{table}].tBodies[0]"
    return tab.evaluate(f"[...{body}.rows].map((row) => row.cells[0].textContent)")


def point(tab, panel: str, probe: int, across: float, down: float) -> str:
    """Point into the axes of a panel and return what the read-out says; nothing where it is hidden."""
    x, y = tab.evaluate(f"""(() => {{
      const svg = document.querySelector("#{panel} svg.plot");
      svg.scrollIntoView({{block: "center"}});
      const [left, top, width, height] =
        JSON.parse(document.getElementById("data").textContent).panels["{panel}"][{probe}].box;
      const spot = new DOMPoint(left + {across} * width, top + {down} * height).matrixTransform(svg.getScreenCTM());
      return [spot.x, spot.y];
    }})()""")
    tab.move(x, y)
    return tab.evaluate("readout.hidden ? '' : readout.textContent")


def test_it_loads_without_a_complaint_and_asks_for_nothing(tab):
    assert tab.evaluate("document.title") == "feedforward: 2 methods compared"
    assert visible(tab, "figure svg.plot") == 6
    assert visible(tab, "#readout") == 0


def test_what_is_watched_for_would_be_seen(browser, tmp_path):
    """A page that fetches, complains and throws is caught at all three."""
    page = (
        "<img src='http://127.0.0.1:9/x.png'><script>console.error('a complaint'); throw new Error('a throw')</script>"
    )
    (tmp_path / "bad.html").write_text(page)
    browser.open(tmp_path / "bad.html")
    assert browser.requests() == ["http://127.0.0.1:9/x.png"]
    caught = " ".join(browser.complaints())
    assert all(words in caught for words in ("Failed to load resource", "a complaint", "a throw"))


def test_a_method_in_the_legend_goes_from_every_panel_and_table(tab):
    panels = ["curves", "heatmap", "residual", "lr_map", "pareto", "parallel"]
    before = {panel: visible(tab, f"#{panel} .m1") for panel in panels}
    others = {panel: visible(tab, f"#{panel} .m0") for panel in panels}
    assert min(before.values()) > 0
    assert rows(tab) == ["baseline", "minimal_norm"]

    tab.click('button[data-method="1"]')
    assert {panel: visible(tab, f"#{panel} .m1") for panel in panels} == dict.fromkeys(panels, 0)
    assert {panel: visible(tab, f"#{panel} .m0") for panel in panels} == others
    assert visible(tab, "tr.m1") == 0
    assert tab.evaluate("document.querySelector('button[data-method=\"1\"]').ariaPressed") == "false"
    assert "minimal_norm" not in point(tab, "curves", 0, 0.9, 0.5)

    tab.click("button.everything")
    assert {panel: visible(tab, f"#{panel} .m1") for panel in panels} == before
    assert visible(tab, "tr.m1") == 2


def test_a_legend_button_works_by_the_keyboard(tab):
    tab.evaluate("document.querySelector('button[data-method=\"0\"]').focus()")
    tab.press(" ", 32, " ")
    assert visible(tab, "#curves .m0") == 0
    tab.press("Enter", 13, "\r")
    assert visible(tab, "#curves .m0") > 0


@pytest.mark.parametrize("heading", ["drift, final", "val acc, best", "method"])
def test_a_heading_sorts_its_table_and_no_other(tab, heading):
    place = tab.evaluate(f"""(() => {{
      const heads = [...document.querySelectorAll("table.results")[1].tHead.rows[0].cells];
      const k = heads.findIndex((head) => head.textContent === {heading!r});
      heads[k].querySelector("button").dataset.wanted = "yes";
      return k;
    }})()""")
    values = f"""[...document.querySelectorAll("table.results")[1].tBodies[0].rows].map(
      (row) => parseFloat(row.cells[{place}].dataset.value))"""
    first = tab.evaluate(values)
    assert first[0] != first[1]
    for order in ("ascending", "descending"):
        tab.click("[data-wanted]")
        assert tab.evaluate(values) == sorted(first, reverse=order == "descending")
        assert tab.evaluate("document.querySelector('[data-wanted]').parentElement.ariaSort") == order
    assert rows(tab, 0) == ["baseline", "minimal_norm"]


def test_the_read_out_over_curves(tab, report):
    text = point(tab, "curves", 0, 0.99, 0.5)
    assert text.startswith("validation loss, balanced start, step 43\n")
    named = {line.split(":")[0]: line for line in text.splitlines()[1:]}
    assert set(named) == {"baseline", "minimal_norm"}
    shown = float(named["baseline"].split(": ")[1].split(" ")[0])
    _, steps, mean, *_ = tab.evaluate("JSON.parse(data.textContent).panels.curves[0].curves[0]")
    assert (steps[-1], mean[-1]) == (43, pytest.approx(shown, rel=1e-2))
    assert tab.evaluate("document.querySelector('#curves .cursor').getAttribute('d')").startswith("M")


@pytest.mark.parametrize(
    ("panel", "across", "down", "says"),
    [
        ("lr_map", 0.2, 0.2, "baseline, lr 0.02: "),
        ("lr_map", 0.8, 0.8, "minimal_norm, lr 1e+06: diverged, diverged"),
        ("heatmap", 0.1, 0.1, "net.0:scale, step 0: drift "),
        ("pareto", 0.9, 0.1, "final drift"),
        ("residual", 0.1, 0.5, "slice residual, balanced start, step 0\n"),
        ("parallel", 0.9, 0.1, "baseline"),
    ],
)
def test_the_read_out_over_the_other_panels(tab, panel, across, down, says):
    assert says in point(tab, panel, 0, across, down)


def test_the_read_out_goes_when_the_pointer_leaves(tab):
    assert point(tab, "curves", 0, 0.5, 0.5)
    tab.move(1, 1)
    assert tab.evaluate("readout.hidden")


def test_the_arrow_keys_read_step_by_step(tab):
    tab.evaluate("document.getElementById('residual').focus()")
    seen = []
    for _ in range(2):
        tab.press("ArrowRight", 39)
        seen.append(tab.evaluate("readout.textContent"))
    assert len(set(seen)) == 2
    assert all(text.startswith("slice residual") for text in seen)
    tab.press("Escape", 27)
    assert tab.evaluate("readout.hidden")


@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(22, 24, 27)")])
def test_it_follows_the_scheme_of_the_person(tab, scheme, paper):
    tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    colors = tab.evaluate("""(() => {
      const text = document.querySelector("#curves svg.plot text");
      return [getComputedStyle(document.body).backgroundColor, getComputedStyle(text).fill,
              getComputedStyle(document.body).color];
    })()""")
    assert colors[0] == paper
    assert colors[1] == colors[2]


@pytest.mark.parametrize("width", [800, 1400])
def test_nothing_sticks_out_sideways(tab, width):
    tab.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
