"""The end of a comparison: the report's files, and the table that the terminal shows."""

from __future__ import annotations

from pathlib import Path

from gaugefix.compare.results import ResultsError, load
from gaugefix.compare.table import Table, measures, tables
from gaugefix.demo.extras import require

COLUMNS = ("best lr", "val loss, final", "largest stable lr", "diverged", "failed", "step overhead")
"""Headings of the report's table that a terminal has room for, beside the monitored metric."""


def close(directory: Path) -> Path:
    """Print the table and write the report of the runs that are there.

    Returns:
        Path of report.html, or the directory where no report could be written; a line says why.
    """
    try:
        results = load(directory)
    except ResultsError as error:
        print(error)
        return directory
    monitored = measures(results)[0][1]
    headings: tuple[str, ...] = (COLUMNS[0], monitored, *COLUMNS[1:])
    if len(results.lrs) < 2:
        headings = tuple(heading for heading in headings if not heading.endswith(" lr"))
    for table in tables(results):
        print_table(table, headings, results.recipe)
    try:
        from gaugefix.compare.report import write_report

        return write_report(directory)
    except ImportError as error:  # MissingExtraError has the command that installs what is missing
        print(error)
        return directory


def print_table(table: Table, headings: tuple[str, ...], recipe: str) -> None:
    """Print the columns with these headings, the best of each in bold."""
    require("rich", "gaugefix compare")
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=None, header_style="bold", pad_edge=False)
    shown.add_column("method", vertical="bottom", no_wrap=True)
    columns = [table.headings.index(heading) for heading in dict.fromkeys(headings) if heading in table.headings]
    for k in columns:
        shown.add_column(table.headings[k].replace(", ", "\n"), justify="right", vertical="bottom")
    for row in table.rows:
        cells = [Text(row.cells[k].text, style="bold" if row.cells[k].best else "") for k in columns]
        shown.add_row(Text(row.method), *cells)
    Console().print(f"\n{recipe}, {table.start} start", shown, sep="\n", highlight=False)
