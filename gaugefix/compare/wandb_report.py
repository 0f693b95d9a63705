"""A report on W&B with the panels of the local report, made of runs that are there already."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gaugefix.compare.wandb_panels import blocks
from gaugefix.demo.extras import MissingExtraError, requirements
from gaugefix.errors import GaugeError

COMMAND = "gaugefix wandb-report"
LONGEST_TITLE = 128  # that W&B takes


class WandbReportError(GaugeError, RuntimeError):
    """W&B cannot make the report; the message says what is missing."""


def write_wandb_report(
    project: str, groups: Sequence[str] = (), where: Mapping[str, Any] | None = None, title: str | None = None
) -> str:
    """Save a report about the runs of a W&B project and return its address.

    Saving needs a login and runs that were sent online, or uploaded by ``wandb sync``. Every call makes a new report.

    Args:
        project: ``project``, or ``entity/project``; without an entity, that of the person who is logged in.
        groups: show only these: a recipe (``feedforward``) or a recipe and a method (``feedforward/minimal_norm``).
        where: show only runs with these settings, such as ``{"lr": 0.03, "start": "unbalanced"}``.
        title: of the report.

    Raises:
        MissingExtraError: if ``wandb-workspaces`` is not installed.
        WandbReportError: without a login, for a project that is not there or not readable, or for a server that
            refuses the report.
    """
    api, wandb = imported("wandb_workspaces.reports.v2"), imported("wandb")
    *given, name = project.split("/")
    if len(given) > 1 or not all([*given, name]):
        raise WandbReportError(f"Expected project or entity/project for {COMMAND}, got '{project}'.")
    try:
        entity = given[0] if given else wandb.Api().default_entity
    except Exception as error:  # the client has no public type for what its transport reports
        raise WandbReportError(
            f"Expected a W&B login for {COMMAND}, got none that works: {first_line(error)} Run 'wandb login', or set "
            "WANDB_API_KEY. 'gaugefix report <dir>' draws the same panels without an account."
        ) from error
    report = api.Report(
        entity=entity,
        project=name,
        title=(title or f"gaugefix: {', '.join(groups) or name}")[:LONGEST_TITLE],
        description=f"Made by '{COMMAND}' from the runs of {entity}/{name}.",
        blocks=blocks(api, {"entity": entity, "project": name}, runs_in(groups, where or {}), pages_of(groups)),
        width="fluid",
    )
    try:
        report.save()
    except Exception as error:  # as above
        raise WandbReportError(
            f"Expected W&B to save a report in '{entity}/{name}', got: {first_line(error)} The project must be there, "
            "and this login allowed to write to it. Runs make it: a recipe with '--wandb online', or 'wandb sync'."
        ) from error
    return str(report.url)


def parse_where(settings: Sequence[str]) -> dict[str, Any]:
    """Read settings as they are typed, ``lr=0.03``: a number, true, false or null as JSON has them, or else a word.

    Raises:
        WandbReportError: for one without a key, a value or ``=``.

    Example:
        >>> parse_where(["lr=0.03", "start=unbalanced"])
        {'lr': 0.03, 'start': 'unbalanced'}
    """
    found = {}
    for text in settings:
        key, _, value = (part.strip() for part in text.partition("="))
        if not key or not value:
            raise WandbReportError(f"Expected KEY=VALUE for --where, got '{text}'. Write it like lr=0.03.")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def runs_in(groups: Sequence[str], where: Mapping[str, Any]) -> str:
    """Return the filter for runs of one of the groups, if any is named, with these settings.

    Example:
        >>> runs_in(["feedforward"], {"lr": 0.03})
        "Config('recipe') == 'feedforward' and Config('lr') == 0.03"
    """
    named = one_of(f"Metric('Group') == {g!r}" if "/" in g else f"Config('recipe') == {g!r}" for g in groups)
    return " and ".join(named + [f"Config({key!r}) == {value!r}" for key, value in where.items()])


def pages_of(groups: Sequence[str]) -> str:
    """Return the filter for runs that hold a page of a comparison of these recipes, or of any."""
    recipes = sorted({group.split("/")[0] for group in groups})
    return " and ".join(
        ["Metric('JobType') == 'report'", *one_of(f"Metric('Group') == '{recipe}/compare'" for recipe in recipes)]
    )


def one_of(terms: Iterable[str]) -> list[str]:
    """Return the terms joined by or, as one term; none for none."""
    given = list(terms)
    return [f"({' or '.join(given)})"] if len(given) > 1 else given


def imported(module: str) -> Any:
    """Import a module of the extra ``wandb``."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        known = requirements("wandb")
        packages = " ".join(f'"{known.get(name, name)}"' for name in ("wandb", "wandb-workspaces"))
        raise MissingExtraError(
            f"Expected the package wandb-workspaces for {COMMAND}, got none. Install it: pip install {packages}"
        ) from error


def first_line(error: Exception) -> str:
    """Return the first line of a message, as a sentence."""
    line = (str(error).splitlines() or [type(error).__name__])[0].strip()
    return line if line.endswith((".", "!", "?")) else f"{line}."
