"""The errors of 8-bit rounding as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gaugefix.demo.quantization import SCALES

EXPLANATION = (
    "int8, symmetric, absmax: s·round(x/s) with s = max|x|/127, one s per tensor or per channel. Relative errors in "
    "percent, means over the layers. *weight*: ‖Ŵ − W‖/‖W‖, a channel is a row of W. *output*: ‖Ŵx − Wx‖/‖Wx‖, x "
    "exact. *activation*: the rounded output of q, k and v (before rotary positions), and the rounded input of o, a "
    "channel is a feature; scales from the same text. *loss*: nats per character, with the weights of all q, k, v and "
    "o rounded."
)
KINDS = ("weight", "output", "activation")


def as_markdown(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table of errors and one of losses.

    Args:
        reports: gauge → :func:`gaugefix.demo.quantization.report`.
    """
    columns = [f"{kind}/{scale}" for kind in KINDS for scale in SCALES]
    errors = [
        [gauge, role, *(f"{100 * values[column]:.3f}" for column in columns)]
        for gauge, found in reports.items()
        for role, values in found["roles"].items()
    ]
    losses = [
        [gauge, f"{found['loss']['float']:.5f}", *(f"{found['loss'][s] - found['loss']['float']:+.5f}" for s in SCALES)]
        for gauge, found in reports.items()
    ]
    headings = [column.replace("/", ", per ") for column in columns]
    return "\n\n".join(
        [
            EXPLANATION,
            _table(["gauge", "projection", *headings], errors),
            _table(["gauge", "loss, float", *(f"change, int8 per {scale}" for scale in SCALES)], losses),
        ]
    )


def _table(headings: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [headings, ["---"] * len(headings), *rows])
