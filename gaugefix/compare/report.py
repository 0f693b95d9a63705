"""Writes the report on a directory of runs: results.csv, table.md, report.html and report.png."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from gaugefix.compare.contrast import brightness
from gaugefix.compare.facts import counted, facts, how_chosen
from gaugefix.compare.figures.swatch import swatch
from gaugefix.compare.material import Material, gather
from gaugefix.compare.panels import panels
from gaugefix.compare.picture import draw_picture
from gaugefix.compare.results import Results, load
from gaugefix.compare.results_csv import results_csv
from gaugefix.compare.table import tables
from gaugefix.compare.table_md import table_md


def write_report(directory: str | os.PathLike[str]) -> Path:
    """Write the four files of a comparison beside its runs; the same runs give the same bytes.

    Args:
        directory: a comparison, or a directory of ordinary runs (see :func:`gaugefix.compare.results.load`).

    Returns:
        The path of report.html.

    Raises:
        ResultsError: if there is nothing to report on.
        MissingExtraError: without matplotlib; results.csv and table.md are there all the same.
    """
    results = load(directory)
    place = results.directory
    write(place / "results.csv", results_csv(results))
    write(place / "table.md", table_md(results))
    material = gather(results)
    write(place / "report.html", page(material))
    draw_picture(material, place / "report.png")
    return place / "report.html"


def page(material: Material) -> str:
    """Return report.html: one file that fetches nothing."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    results = material.results
    numbers = {method: index for index, method in enumerate(results.methods)}
    drawn = panels(material)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=False)
    data = {"methods": list(results.methods), "panels": {panel.name: panel.probes for panel in drawn}}
    return environment.from_string(resource("page.html")).render(
        title=f"{results.recipe}: {counted(results.methods, 'method')} compared",
        facts=facts(results),
        chosen=how_chosen(results),
        command=results.grid.get("command"),
        environment=described(results),
        numbers=numbers,
        methods=[
            {
                "name": method,
                "swatch": Markup(swatch(f"swatch{index}", material.style(method))),
                "brightness": brightness(str(material.style(method)["color"])),
            }
            for method, index in numbers.items()
        ],
        tables=tables(results),
        panels=[{**vars(panel), "svg": Markup(panel.svg)} for panel in drawn],
        data=Markup(embedded(data)),
        css=Markup(resource("page.css")),
        script=Markup(resource("page.js")),
    )


def embedded(data: Any) -> str:
    """Return JSON that can stand inside a script element, whatever is in its strings."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def described(results: Results) -> str:
    """Return the environment of the grid as one line."""
    environment = results.grid.get("environment")
    if not isinstance(environment, dict):
        return ""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in environment.items())


def resource(name: str) -> str:
    """Return a file of the page that comes with the package."""
    return (files("gaugefix.compare") / "page" / name).read_text(encoding="utf-8").rstrip()


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8", newline="\n")
    part.replace(path)
