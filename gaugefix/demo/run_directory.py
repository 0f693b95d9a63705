"""A new directory for every run."""

from __future__ import annotations

import itertools
import os
from datetime import datetime
from pathlib import Path

from gaugefix.errors import GaugeError


class OutputError(GaugeError, OSError):
    """Results cannot be written where they should be."""


def new_run_directory(parent: str | os.PathLike[str], name: str, time_first: bool = True) -> Path:
    """Make ``parent/<time>-<name>`` and return it; with a number behind it where another run took that second.

    Args:
        parent: such as ``runs/feedforward``; made if missing.
        name: such as ``minimal_norm-s0``.
        time_first: False for ``parent/<name>-<time>``.

    Raises:
        OutputError: if the directory cannot be made.
    """
    now = f"{datetime.now():%Y%m%d-%H%M%S}"
    stem = f"{now}-{name}" if time_first else f"{name}-{now}"
    try:
        Path(parent).mkdir(parents=True, exist_ok=True)
        for k in itertools.count(1):
            path = Path(parent) / (stem if k == 1 else f"{stem}-{k}")
            try:
                path.mkdir()
            except FileExistsError:
                continue
            break
    except OSError as error:
        raise OutputError(
            f"Expected a directory to write results to, got '{parent}': {error.strerror}. Choose another with --out."
        ) from error
    return path
