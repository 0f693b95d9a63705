"""Heads: batch entries of the products of an attention that may change places as wholes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gaugefix.discovery.interpreter import Pass
from gaugefix.discovery.labels import Heads
from gaugefix.discovery.value import Value, varies


def heads_of(ctx: Pass, q: Value, k: Value) -> Heads | None:
    """The heads of the scores q·k, along the third axis from the end; ``None`` if there are none.

    Args:
        ctx: the pass.
        q: queries (…, heads, positions, channels).
        k: keys, laid out alike (or with the last two axes exchanged).
    """
    parts = [_by_head(value) for value in (q, k)]
    if len(q.shape) < 3 or len(k.shape) < 3 or q.shape[-3] != k.shape[-3] or any(part is None for part in parts):
        return None
    heads = Heads(q.shape[-3], [part for part in parts if part is not None])
    ctx.labels.heads.append(heads)
    return heads


def join_heads(heads: Heads, v: Value) -> None:
    """The values of a head change places with it."""
    part = _by_head(v)
    if part is None or len(part) != heads.count:
        heads.reason = "values without heads"
    else:
        heads.members.append(part)


def _by_head(value: Value) -> NDArray[np.int64] | None:
    """(heads, channels) labels; ``None`` unless one leg varies along the heads, and along one axis more."""
    if len(value.legs) != 1 or value.source is not None:
        return None
    (leg,) = value.legs
    axis = leg.ndim - 3
    if axis not in varies(leg) or len(varies(leg)) != 2:
        return None
    return np.asarray(leg.movedim(axis, 0).reshape(leg.shape[axis], -1).numpy(), np.int64)
