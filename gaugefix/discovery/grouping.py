"""Group alike things in whole arrays: what occurs once for every channel is looked at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def alike(*keys: NDArray[np.generic], least: int = 1) -> list[Ints]:
    """Positions at which all keys agree, one ascending array for each combination, in the order in which they occur.

    Args:
        keys: arrays of one length.
        least: combinations that occur less often are left out.
    """
    order = np.lexsort(keys[::-1])
    changes = np.ones(len(order), bool)
    changes[1:] = False
    for key in keys:
        ordered = key[order]
        changes[1:] |= ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(changes)
    lengths = np.diff(np.append(starts, len(order)))
    starts, lengths = starts[lengths >= least], lengths[lengths >= least]
    found = np.argsort(order[starts])
    return [order[a : a + n] for a, n in zip(starts[found].tolist(), lengths[found].tolist(), strict=True)]


def distinct(values: Ints) -> Ints:
    """The different entries, sorted (``np.unique``, without its cost for what is sorted already)."""
    flat = values.ravel()
    return flat if bool((flat[1:] > flat[:-1]).all()) else np.unique(flat)


def distinct_pairs(left: Ints, right: Ints) -> tuple[Ints, Ints]:
    """The different pairs of entries between 0 and 2³¹, sorted."""
    if bool((left[1:] > left[:-1]).all()):
        return left, right
    pairs = np.unique(left << 32 | right)
    return pairs >> 32, pairs & 0xFFFFFFFF


def distinct_rows(table: Ints) -> Ints:
    """The different rows of a table of whole numbers, in an order that depends on them only."""
    if any(bool((np.diff(column) > 0).all()) for column in table.T):
        return table
    _, first = np.unique(_as_bytes(table.astype(">i8")), return_index=True)
    return np.asarray(table[first], np.int64)


def rank(owner: Ints) -> Ints:
    """How many entries of the same owner come before, for every entry; owners lie together."""
    starts = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]])) if len(owner) else owner
    return np.asarray(np.arange(len(owner)) - np.repeat(starts, np.diff(np.append(starts, len(owner)))), np.int64)


def same_lines(owner: Ints, lines: NDArray[np.generic]) -> list[Ints]:
    """Owners whose lines are the same, one array for each kind, in the order in which they occur.

    Args:
        owner: owner of every line; those of one owner lie together.
        lines: (lines, columns).

    Returns:
        Numbers of owners in the order in which they occur in ``owner``: 0, 1, ….
    """
    starts = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]]))
    counts = np.diff(np.append(starts, len(owner)))
    found: list[Ints] = []
    for count in np.unique(counts):
        having = np.flatnonzero(counts == count)
        block = lines[starts[having][:, None] + np.arange(count)].reshape(len(having), -1)
        _, kind = np.unique(_as_bytes(block), return_inverse=True)
        found += [having[members] for members in alike(kind)]
    return sorted(found, key=lambda members: int(members[0]))


def _as_bytes(table: NDArray[np.generic]) -> NDArray[np.void]:
    """Every row as one item."""
    table = np.ascontiguousarray(table)
    return table.view(np.dtype((np.void, table.dtype.itemsize * table.shape[1]))).ravel()
