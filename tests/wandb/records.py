"""What a client has told the fake backend."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Run:
    """One run."""

    id: str
    project: str = ""
    name: str = ""
    group: str | None = None
    job_type: str | None = None
    sweep: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None


@dataclass
class Sweep:
    """A sweep and what is left of its grid."""

    id: str
    project: str
    config: dict[str, Any]
    left: list[dict[str, Any]]
    handed_out: int = 0
