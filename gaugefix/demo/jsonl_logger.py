"""A logger that writes plain files: one JSON line per logged step, and a summary at the end."""

from __future__ import annotations

import json
import math
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class JsonlLogger(Logger):
    """Writes ``metrics.jsonl`` while training and ``summary.json`` when it ends, well or badly.

    A line is ``{"step": 49, "epoch": 1, "train/loss": 0.31}``. JSON has no NaN and no infinity: both become null.

    Args:
        directory: of this run alone; made when the first line is written.

    Raises:
        FileExistsError: at the first line, if another run has written there.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        super().__init__()
        self.directory = Path(directory)
        self.summary: dict[str, Any] = {}
        self._file: TextIO | None = None
        self._started = False

    @property
    def name(self) -> str:
        """Empty, so that Lightning puts checkpoints right below the directory."""
        return ""

    @property
    def version(self) -> str:
        """Empty, for the same reason."""
        return ""

    @property
    def save_dir(self) -> str:
        """The directory of the run."""
        return str(self.directory)

    @property
    def log_dir(self) -> str:
        """The directory of the run."""
        return str(self.directory)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write one line."""
        row = {"step": step, **{key: plain(value) for key, value in metrics.items()}}
        self._open().write(json.dumps(row, allow_nan=False) + "\n")

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Put hyperparameters into the summary, under their own names; those that begin with _ are Lightning's own."""
        given = vars(params) if isinstance(params, Namespace) else params
        self.log_summary({key: value for key, value in given.items() if not key.startswith("_")})

    @rank_zero_only
    def log_summary(self, values: Mapping[str, Any]) -> None:
        """Add to the summary; a later value replaces an earlier one."""
        self.summary.update({key: plain(value) for key, value in values.items()})

    @rank_zero_only
    def save(self) -> None:
        """Bring the lines to the disk."""
        if self._file is not None:
            self._file.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the summary and close the files.

        The process that only launched those that trained leaves theirs alone.
        """
        if not self._started and (self.directory / "metrics.jsonl").exists():
            return
        self.log_summary({"status": status})
        self._open().close()
        self._file = None
        whole = self.directory / "summary.json.part"
        whole.write_text(json.dumps(self.summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        whole.replace(self.directory / "summary.json")  # never half a summary

    def _open(self) -> TextIO:
        if self._file is None:
            self.directory.mkdir(parents=True, exist_ok=True)
            path = self.directory / "metrics.jsonl"
            if path.exists() and not self._started:
                raise FileExistsError(
                    f"Expected a directory without metrics.jsonl for JsonlLogger, got '{self.directory}'. "
                    "Give every run a directory of its own."
                )
            self._started = True
            self._file = path.open("a", encoding="utf-8")
        return self._file


def plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it: tensors of one number become numbers, what is not finite becomes null."""
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
