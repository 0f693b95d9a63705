"""The site leads to every page, and formulas become MathML."""

import importlib
import importlib.util
import re

import pytest
import yaml

from tests.docs.cards import ROOT

DOCS = ROOT / "docs"
INTERNAL = {"adopt", "agreed", "as_read_by", "tensors_for", "tensors_of", "use_gauge"}  # between rooms of gaugefix
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def entries(nav):
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        else:
            (value,) = entry.values()
            yield from [value] if isinstance(value, str) else entries(value)


def test_every_page_is_in_the_navigation():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(entries(config["nav"])) == PAGES


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", text)
    assert not [target for target in targets if not ((DOCS / page).parent / target).is_file()]


@pytest.mark.parametrize(
    "room", ["", ".callbacks", ".slices", ".regularizers", ".functional", ".metrics", ".ode", ".testing"]
)
def test_every_public_name_is_on_an_api_page(room):
    text = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md"))
    shown = {name.rsplit(".", 1)[-1] for name in re.findall(r"^::: (gaugefix\.\S+)$", text, flags=re.MULTILINE)}
    names = {*importlib.import_module(f"gaugefix{room}").__all__} - INTERNAL
    assert not names - shown


class Page:
    class file:
        src_uri = "page.md"


@pytest.fixture(scope="module")
def hooks():
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    pytest.importorskip("latex2mathml", reason="the extra docs is not installed")
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "site_hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_formulas_become_mathml(hooks):
    content = '<p>so <span class="arithmatex">\\(a &lt; b^2\\)</span>:</p><div class="arithmatex">\\[x\\]</div>'
    made = hooks.on_page_content(content, Page)
    assert "arithmatex" not in made
    assert made.count("<math") == 2
    assert "<msup><mi>b</mi><mn>2</mn></msup>" in made
    assert '<div class="formula"><math' in made


def test_papers_become_links_once(hooks):
    link = '<a href="https://arxiv.org/abs/2402.02362">arXiv 2402.02362</a>'
    assert hooks.on_page_content("see arXiv 2402.02362, Section 6", Page) == f"see {link}, Section 6"
    assert hooks.on_page_content(link, Page) == link


def test_an_unknown_command_stops_the_build(hooks):
    from mkdocs.exceptions import PluginError

    with pytest.raises(
        PluginError, match=r"Expected a formula that latex2mathml knows in page\.md, got '\\nonsense x'\."
    ):
        hooks.on_page_content('<span class="arithmatex">\\(\\nonsense x\\)</span>', Page)


@pytest.mark.parametrize(
    "tag", ['<script src="https://cdn.org/x.js">', '<link rel="stylesheet" href="//cdn.org/x.css">']
)
def test_what_is_fetched_from_the_network_stops_the_build(hooks, tag):
    from mkdocs.exceptions import PluginError

    with pytest.raises(PluginError, match="Expected a page that reads without a network"):
        hooks.on_post_page(f"<head>{tag}</head>", Page)
    assert hooks.on_post_page('<a href="https://arxiv.org">', Page) == '<a href="https://arxiv.org">'
