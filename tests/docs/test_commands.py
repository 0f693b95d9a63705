"""Commands of gaugefix that pages show are commands that gaugefix knows."""

import shlex

import pytest

from gaugefix.cli import parse
from gaugefix.demo.methods import parse_method
from tests.docs.cards import ROOT, code_blocks

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = [
    (str(page.relative_to(ROOT)), line)
    for page in PAGES
    for block in code_blocks(page.read_text(encoding="utf-8"), "bash")
    for line in block.splitlines()
    if line.startswith("gaugefix ") and "<" not in line
]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_commands_parse(page, line):
    arguments = parse(shlex.split(line, comments=True)[1:])
    for method in getattr(arguments, "methods", None) or ():
        parse_method(method, arguments.recipe)
