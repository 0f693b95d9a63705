"""What is found in each model of the zoo, how it verifies and how long it takes.

The table of all models, on one core:

    OMP_NUM_THREADS=1 python -m tests.zoo.survey docs/evidence/zoo.md
"""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import gaugefix
from gaugefix.discovery.capture import capture
from gaugefix.errors import DiscoveryError, NoEffectWarning
from gaugefix.symmetry import GaugeGroup, LinearSymmetry, ShiftSymmetry, Symmetry
from tests.zoo.models import ZOO

HEADER = """# What is found in small `transformers` models

Two layers, random parameters (*size*: how many), eps 0.05 in every norm. *Found* is the number of continuous redundant
dimensions, then split by kind. *Error* is the largest relative change of any output in float64 under random group
elements, in train and eval mode (it must be at most 1e-12). Times are in seconds on one core; discovery includes its
own export.

    OMP_NUM_THREADS=1 python -m tests.zoo.survey docs/evidence/zoo.md

Versions: {versions}.

| architecture | attention | size | found | by kind | no rule for | frozen parameters | export | discovery | error |
| --- | --- | ---: | ---: | --- | --- | --- | ---: | ---: | ---: |
"""


@dataclass(frozen=True)
class Row:
    """One line of the table; times in seconds."""

    architecture: str
    attention: str
    parameters: int
    found: int
    kinds: str
    unknown: str
    frozen: str
    export: float
    discovery: float
    error: float

    def __str__(self) -> str:
        text = f"| {self.architecture} | {self.attention} | {self.parameters} | {self.found} | {self.kinds} "
        text += f"| {self.unknown} | {self.frozen} "
        return f"{text}| {self.export:.2f} | {self.discovery:.2f} | {self.error:.1e} |"


def kind(symmetry: Symmetry) -> str:
    """Linear symmetries by their group, others by their class."""
    if isinstance(symmetry, LinearSymmetry):
        return type(symmetry.group).__name__
    return "shifts" if isinstance(symmetry, ShiftSymmetry) else type(symmetry).__name__


def by_kind(gauge: GaugeGroup) -> str:
    """Dimensions of each kind."""
    counts: Counter[str] = Counter()
    for symmetry in gauge.applied:
        counts[kind(symmetry)] += symmetry.dimension
    return ", ".join(f"{name} {n}" for name, n in counts.items() if n)


def blockers(gauge: GaugeGroup, most: int = 3) -> str:
    """The commonest reasons for parameters that nothing moves."""
    reasons = Counter(f.reason for f in gauge.frozen)
    return "; ".join(f"{reason} ({n})" for reason, n in reasons.most_common(most))


def survey(name: str, attention: str) -> tuple[Row, GaugeGroup]:
    """Discover and verify one model.

    Raises:
        DiscoveryError: if it cannot be exported.
        VerificationError: if what is found is false.
    """
    model, inputs = ZOO[name].build(attention)
    start = time.perf_counter()
    capture(model, inputs)
    exported = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoEffectWarning)
        gauge = gaugefix.discover(model, inputs)
    discovered = time.perf_counter()
    row = Row(
        name,
        attention,
        sum(p.numel() for p in model.parameters()),
        gauge.dimension,
        by_kind(gauge),
        ", ".join(gauge.unknown_ops),
        blockers(gauge),
        exported - start,
        discovered - exported,
        gaugefix.verify(model, gauge, inputs).error,
    )
    return row, gauge


def table(cases: Iterable[tuple[str, str]]) -> str:
    """The whole table; a model that cannot be exported has a line that says so."""
    lines = []
    for name, attention in cases:
        try:
            row, _ = survey(name, attention)
            lines.append(str(row))
        except DiscoveryError as error:
            lines.append(f"| {name} | {attention} | | | not exported: {str(error).partition('. ')[0]} | | | | | |")
        sys.stderr.write(lines[-1] + "\n")
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    return HEADER.format(versions=versions) + "\n".join(lines) + "\n"


CASES = [(name, attention) for name, entry in ZOO.items() for attention in entry.attention]

if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(table(CASES))
