"""Grouping in whole arrays gives what comparing one by one gives."""

import numpy as np
import pytest

from gaugefix.discovery.grouping import alike, distinct, distinct_pairs, distinct_rows, rank, same_lines


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_alike(random):
    a, b = random.integers(0, 4, 60), random.integers(0, 3, 60) > 0
    expected: dict[tuple[int, bool], list[int]] = {}
    for k in range(60):
        expected.setdefault((a[k], b[k]), []).append(k)
    assert [group.tolist() for group in alike(a, b)] == list(expected.values())
    often = [group for group in expected.values() if len(group) >= 8]
    assert often != list(expected.values())
    assert [group.tolist() for group in alike(a, b, least=8)] == often
    assert alike(np.zeros(0, np.int64)) == []


@pytest.mark.parametrize("ordered", [True, False])
def test_distinct(random, ordered):
    values = random.integers(0, 30, (4, 20)).cumsum() if ordered else random.integers(0, 30, (4, 20))
    assert distinct(values).tolist() == sorted(set(values.ravel().tolist()))


def test_distinct_pairs(random):
    left, right = random.integers(0, 5, 50), random.integers(0, 2**31 - 1, 5)[random.integers(0, 5, 50)]
    pairs = distinct_pairs(left, right)
    assert list(zip(*(p.tolist() for p in pairs), strict=True)) == sorted(set(zip(left, right, strict=True)))


def test_distinct_rows(random):
    table = random.integers(-1, 3, (80, 3))
    rows = distinct_rows(table)
    assert len(rows) < 64 + 1
    assert sorted(map(tuple, rows.tolist())) == sorted(set(map(tuple, table.tolist())))
    assert np.array_equal(rows, distinct_rows(table[::-1]))


def test_rank():
    assert rank(np.array([3, 3, 1, 1, 1, 7])).tolist() == [0, 1, 0, 1, 2, 0]


def test_same_lines(random):
    pieces = [random.integers(0, 2, (random.integers(1, 4), 2)).astype(float) for _ in range(40)]
    owner = np.repeat(random.permutation(40), [len(piece) for piece in pieces])
    expected: dict[bytes, list[int]] = {}
    for k, piece in enumerate(pieces):
        expected.setdefault(piece.tobytes(), []).append(k)
    found = same_lines(owner, np.concatenate(pieces))
    assert [members.tolist() for members in found] == list(expected.values())
    assert len(found) < 40
