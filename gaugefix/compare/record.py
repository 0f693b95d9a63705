"""grid.json: what a comparison is, so that it can be gone on with, and is not mixed with another."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from gaugefix.compare.grid import Grid, GridError
from gaugefix.demo.run_directory import OutputError

VERSION = 1
AXES = ("methods", "lrs", "seeds", "starts")
"""What may differ between two commands with one directory: a comparison grows."""
SAME = ("version", "recipe", "config", "config_sha256", "max_steps", "settings")
"""What may not: the runs would not be comparable."""
OPTION_OF = {
    "recipe": "the recipe",
    "config": "--config",
    "config_sha256": "the content of the configuration",
    "max_steps": "--max-steps",
    "settings": "--set",
    "version": "the version",
}


def describe(grid: Grid, line: str) -> dict[str, Any]:
    """Return the content of grid.json.

    Args:
        grid: what is run.
        line: the command that was typed.
    """
    monitor, mode = grid.monitor
    return {
        "version": VERSION,
        "recipe": grid.recipe,
        "command": line,
        "methods": [variant.label for variant in grid.variants],
        "lrs": list(grid.lrs),
        "seeds": list(grid.seeds),
        "starts": list(grid.starts),
        "max_steps": grid.max_steps,
        "monitor": monitor,
        "monitor_mode": mode,
        "config": grid.config.name,
        "config_sha256": grid.fingerprint,
        "settings": sorted(grid.settings),
        "meaning": {
            variant.label: {
                "options": dict(variant.method.options),
                "callbacks": list(variant.method.callbacks),
                "settings": list(variant.settings),
            }
            for variant in grid.variants
        },
        "environment": environment(),
    }


def environment() -> dict[str, Any]:
    """Return what the times and the last digits of the results depend on."""
    packages = ("gaugefix", "torch", "lightning", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "python": platform.python_version(),
        **versions,
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cpu_cores": cores(),
        "started": f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %z}",
    }


def cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_record(directory: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    """Write grid.json, or add to the one that is there, and return its content.

    Raises:
        GridError: if the directory holds something else, or another comparison; the message says what differs.
        OutputError: if it cannot be written.
    """
    path = directory / "grid.json"
    try:
        if path.exists():
            content = merged(read_record(path), description, directory)
        elif any(directory.iterdir()):
            raise GridError(
                f"Expected an empty directory or one of a comparison for --out, got '{directory}': it has no "
                "grid.json. Choose another."
            )
        else:
            content = dict(description)
        part = path.with_name("grid.json.part")
        part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise unwritable(directory, error) from error
    return content


def make(directory: Path) -> Path:
    """Make the directory of a comparison, if it is not there, and return it.

    Raises:
        OutputError: if it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(directory, error) from error
    return directory


def unwritable(directory: Path, error: OSError) -> OutputError:
    """Return the error about a directory that cannot be written."""
    return OutputError(
        f"Expected a directory to write results to, got '{directory}': {error.strerror}. Choose another with --out."
    )


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Keep other comparisons out of a directory for a while, where the system can lock one.

    Raises:
        GridError: if another is at work there.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise GridError(
                f"Expected a directory for --out where no other comparison is at work, got '{directory}'. Wait for it, "
                "or choose another; --jobs does several runs at a time."
            ) from error
        yield
    finally:
        os.close(handle)


def read_record(path: Path) -> dict[str, Any]:
    """Return the content of a grid.json.

    Raises:
        GridError: if it is no JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise GridError(
            f"Expected a JSON object for '{path}', got something else. Choose another directory with --out."
        )
    return found


def merged(old: Mapping[str, Any], new: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Return the comparison of both commands.

    Raises:
        GridError: if they cannot be compared; the message says what differs.
    """
    differs = [f"{OPTION_OF[key]} was {old.get(key)!r} and is {new[key]!r}" for key in SAME if old.get(key) != new[key]]
    meanings = old.get("meaning", {})
    differs += [
        f"the method {label} was {meanings[label]} and is {meaning}"
        for label, meaning in new["meaning"].items()
        if label in meanings and meanings[label] != meaning
    ]
    if differs:
        raise GridError(
            f"Expected the directory of the same comparison for --out, got '{directory}': {'; '.join(differs)}. "
            "Choose another directory, or repeat its own settings; methods, learning rates, seeds and starts may be "
            "added."
        )
    lines = str(old.get("command", "")).split("\n")
    return {
        **new,
        **{axis: list(dict.fromkeys([*old[axis], *new[axis]])) for axis in AXES},
        "command": "\n".join(dict.fromkeys([*lines, new["command"]])),
        "meaning": {**meanings, **new["meaning"]},
        "environment": old.get("environment", new["environment"]),
    }
