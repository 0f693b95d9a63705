"""The ``parameters:`` block of a W&B sweep, as a grid that runs here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from gaugefix.compare.grid import OWN_OPTION, STARTS, GridError, check_setting
from gaugefix.demo.extras import require

READ_APART = {"method", "model.lr", "model.init_args.lr", "seed_everything", "start", "trainer.max_steps"}
"""Parameters that are an axis of a comparison, or its number of steps."""
NOT_OURS = {"picture", "quiet", "trainer.enable_progress_bar", "trainer.enable_checkpointing", *OWN_OPTION}
"""Options in the sweep's command that a comparison sets itself."""


def read_sweep(path: str | Path, recipe: str) -> dict[str, Any]:
    """Return what a sweep's file says, as arguments of :func:`gaugefix.compare.grid.make_grid`.

    ``method``, ``model.lr``, ``seed_everything`` and ``start`` are the axes; any other option of the recipe that has
    several values is a further one. Options in ``command`` are those of every run.

    Args:
        path: the file.
        recipe: that the comparison is about.

    Raises:
        GridError: if the file is no sweep of this recipe, or no grid; the message names the parameter and the mend.
    """
    sweep = _load(Path(path))
    program = str(sweep.get("program", f"{recipe}.py"))
    if Path(program).stem != recipe:
        raise GridError(f"Expected a sweep of {recipe} for --sweep, got '{path}', whose program is '{program}'.")
    if sweep.get("method", "grid") != "grid":
        raise GridError(
            f"Expected 'method: grid' in '{path}', got '{sweep['method']}'. A comparison runs every combination: list "
            "the values of each parameter, or start the sweep with 'wandb sweep'."
        )
    found = {str(key): _values(str(key), spec, path) for key, spec in sweep["parameters"].items()}
    options = _options(sweep.get("command") or [])
    given: dict[str, Any] = {}
    if "config" in options:
        given["config"] = options["config"]
    rates = found.get("model.lr", found.get("model.init_args.lr"))
    axes = (
        ("methods", found.get("method"), str),
        ("lrs", rates, _positive),
        ("seeds", found.get("seed_everything"), _count),
        ("starts", found.get("start"), _start),
        ("max_steps", found.get("trainer.max_steps"), _count),
    )
    for name, values, reader in axes:
        if values is not None:
            given[name] = _each(reader, values, name, path)
    if "max_steps" in given:
        if len(given["max_steps"]) > 1:
            raise GridError(f"Expected one value for 'trainer.max_steps' in '{path}', got {list(given['max_steps'])}.")
        given["max_steps"] = given["max_steps"][0]
    for key in {*found} - READ_APART:
        check_setting(f"{key}=x")
    further = {key: tuple(map(_text, values)) for key, values in found.items() if key not in READ_APART}
    fixed = {**{k: v for k, v in options.items() if k not in NOT_OURS}, **{k: v[0] for k, v in further.items()}}
    several = {key: values for key, values in further.items() if len(values) > 1}
    given["settings"] = tuple(f"{key}={value}" for key, value in fixed.items() if key not in several)
    given["axes"] = several
    return given


def _load(path: Path) -> dict[str, Any]:
    yaml = require("pyyaml", "gaugefix compare --sweep")
    try:
        sweep = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise GridError(
            f"Expected a YAML file for --sweep, got '{path}': {' '.join(str(error).split())}. See configs/sweeps/."
        ) from error
    if not isinstance(sweep, dict) or not isinstance(sweep.get("parameters"), dict):
        raise GridError(f"Expected a W&B sweep with a 'parameters:' block for --sweep, got '{path}', which has none.")
    return sweep


def _values(key: str, spec: Any, path: str | Path) -> tuple[Any, ...]:
    """The values of one parameter."""
    spec = spec if isinstance(spec, Mapping) else {"value": spec}
    distribution = spec.get("distribution")
    if {*spec} <= {"values", "distribution"} and distribution in (None, "categorical") and "values" in spec:
        values = spec["values"]
        if isinstance(values, list) and values:
            return tuple(values)
        raise GridError(f"Expected a list with something in it for the values of '{key}' in '{path}', got {values!r}.")
    if {*spec} <= {"value", "distribution"} and distribution in (None, "constant") and "value" in spec:
        return (spec["value"],)
    odd = f"distribution: {distribution}" if distribution else ", ".join(map(str, spec)) or "nothing"
    raise GridError(
        f"Expected values or value for '{key}' in '{path}', got {odd}. A grid needs the values themselves: write "
        "values: [0.01, 0.1], and the keys of options with dots."
    )


def _options(command: Sequence[Any]) -> dict[str, str]:
    """``--key=value`` and ``--key value`` of a sweep's command."""
    words = [str(word) for word in command]
    found: dict[str, str] = {}
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        key, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and equals:
            found[key] = value
        elif word.startswith("--") and not following.startswith(("--", "${")):
            found[key] = following
    return found


def _each(read: Callable[[Any], Any], values: Sequence[Any], name: str, path: str | Path) -> tuple[Any, ...]:
    try:
        return tuple(dict.fromkeys(read(value) for value in values))
    except ValueError as error:
        raise GridError(f"Expected {error} for the {name} of '{path}', got {list(values)}.") from None


def _positive(value: Any) -> float:
    try:
        number = float(value)  # YAML takes 1e-3 for a word
    except (TypeError, ValueError):
        number = -1.0
    if not 0 < number < float("inf"):
        raise ValueError("positive numbers")
    return number


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("integers that are not negative")
    return value


def _start(value: Any) -> str:
    if value not in STARTS:
        raise ValueError(f"{' or '.join(STARTS)}")
    return str(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
