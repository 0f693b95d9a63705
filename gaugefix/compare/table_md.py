"""table.md: the table of results in Markdown, with the command that made it."""

from __future__ import annotations

import re

from gaugefix.compare.facts import facts, how_chosen
from gaugefix.compare.results import Results
from gaugefix.compare.table import Cell, Table, tables


def table_md(results: Results) -> str:
    """Return the file's text."""
    lines = [f"# {escaped(results.recipe)}: methods compared", ""]
    if results.grid.get("command"):
        command = str(results.grid["command"])
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", command)), default=0))
        lines += [f"{fence}bash", command, fence, ""]
    for one in tables(results):
        lines += [f"## {escaped(one.start)} start", "", *markdown(one), ""]
    lines += [f"- {escaped(sentence)}" for sentence in [*how_chosen(results), *facts(results)]]
    return "\n".join(lines) + "\n"


def markdown(one: Table) -> list[str]:
    """Return the lines of one table."""
    heads = ["method", *one.headings]
    lines = [f"| {' | '.join(heads)} |", f"|{'|'.join([' --- ', *[' ---: '] * len(one.headings)])}|"]
    for row in one.rows:
        lines.append(f"| {' | '.join([escaped(row.method), *map(shown, row.cells)])} |")
    return lines


def shown(cell: Cell) -> str:
    """Return a cell, the best in bold."""
    return f"**{escaped(cell.text)}**" if cell.best else escaped(cell.text)


def escaped(text: str) -> str:
    """Return text that Markdown shows as it stands, on one line."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(text.split()))
