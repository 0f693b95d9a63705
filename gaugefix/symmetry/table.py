"""A readable table of a gauge group, with no dependency."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gaugefix.symmetry.gauge_group import GaugeGroup

_WIDTH = 46


def table(gauge: GaugeGroup) -> str:
    """Group, dimension, exactness and parameters of every symmetry; below it what is frozen, and why."""
    head = ("symmetry", "group", "dim", "exactness", "parameters")
    rows = [
        (s.name, s.group.symbol, str(s.dimension), s.exactness.value, _shorten(", ".join(s.parameters)))
        for s in gauge.symmetries
    ]
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(head, widths, strict=True)).rstrip()]
    lines.append("  ".join("-" * width for width in widths))
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    by_class = Counter({s.exactness.value: 0 for s in gauge.symmetries})
    for s in gauge.symmetries:
        by_class[s.exactness.value] += s.dimension
    detail = ", ".join(f"{count} {name}" for name, count in by_class.items() if count)
    lines.append(f"{gauge.dimension} continuous redundant dimensions" + (f" (listed: {detail})" if detail else ""))
    if gauge.frozen:
        lines.append("not moved:")
        lines += [f"  {entry.parameter}: {entry.reason}" for entry in gauge.frozen]
    if gauge.flows:
        lines.append("states of differential equations that do not mix:")
        lines += [f"  {line}" for flow in gauge.flows for line in flow.splitlines()]
    if gauge.unknown_ops:
        lines.append("operations without a rule (what reaches them is frozen): " + ", ".join(gauge.unknown_ops))
    return "\n".join(lines)


def _shorten(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
