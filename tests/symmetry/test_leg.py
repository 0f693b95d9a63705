"""Legs: what they check when made, and their index arithmetic."""

import numpy as np
import pytest
import torch

from gaugefix.errors import SymmetryError
from gaugefix.symmetry import Leg

CASES = [  # (index, shape of the parameter, n)
    (np.arange(4).reshape(4, 1), (4, 3), 4),
    (np.array([[2, 0, -1, 1]]), (3, 4), 3),
    (np.array([[0, 0, 1, 1, 2, 2]]), (2, 6), 3),
    (np.array([[[0], [1]], [[2], [-1]]]), (2, 2, 3), 3),
]


class TestChecks:
    def test_power_zero(self):
        with pytest.raises(SymmetryError, match=r"Expected a power other than 0 for the leg on 'w'. Leave the leg out"):
            Leg("w", np.arange(3), power=0)

    @pytest.mark.parametrize("axis", [2, -3])
    def test_axis_outside(self, axis):
        with pytest.raises(SymmetryError, match=f"Expected an axis within 2 axes for the leg on 'w', got {axis}"):
            Leg("w", np.arange(3).reshape(3, 1), axis=axis)

    def test_no_entry(self):
        with pytest.raises(SymmetryError, match=r"Expected at least one entry for the leg on 'w'. Leave the leg out"):
            Leg("w", np.full(3, -1))

    def test_index_is_copied_and_read_only(self):
        index = np.arange(3)
        leg = Leg("w", index)
        index[0] = 7
        assert leg.index.tolist() == [0, 1, 2]
        with pytest.raises(ValueError, match="read-only"):
            leg.index[0] = 7
        assert leg.index.dtype == np.int64

    def test_frozen(self):
        with pytest.raises(AttributeError):
            Leg("w", np.arange(3)).power = 2


def test_axes_and_variance():
    assert Leg("w", np.arange(3).reshape(3, 1)).axes == (0,)
    assert Leg("w", np.arange(6).reshape(2, 3)).axes == (0, 1)
    assert not Leg("w", np.arange(6).reshape(2, 3)).flat
    assert Leg("w", np.zeros((1, 1), int), axis=1).axes == (1,)
    assert Leg("w", np.arange(3), power=2).variance == "vector"
    assert Leg("w", np.arange(3), power=-1).variance == "covector"


@pytest.mark.parametrize(("index", "shape", "n"), CASES)
def test_spread_lays_values_out_and_fills_the_rest(index, shape, n):
    values = torch.randn(n, dtype=torch.float64)
    spread = Leg("w", index).spread(values, fill=1.0).expand(shape)
    for entry, coordinate in np.ndenumerate(np.broadcast_to(index, shape)):
        assert spread[entry] == (1.0 if coordinate < 0 else values[coordinate])


@pytest.mark.parametrize(("index", "shape", "n"), CASES)
def test_collect_is_the_transpose_of_spread(index, shape, n):
    """<spread(v), e> = <v, collect(e)> with fill 0."""
    leg = Leg("w", index)
    values, entries = torch.randn(n, dtype=torch.float64), torch.randn(index.shape, dtype=torch.float64)
    left = (leg.spread(values, fill=0.0) * entries).sum()
    torch.testing.assert_close(left, values @ leg.collect(entries, n), rtol=1e-14, atol=1e-14)


def test_covers_only_a_whole_axis_in_order():
    assert Leg("w", np.arange(4)).covers(4)
    assert not Leg("w", np.arange(4)).covers(5)
    assert not Leg("w", np.array([1, 0])).covers(2)
    assert not Leg("w", np.array([0, 1, -1])).covers(2)


class TestPositions:
    def test_blocks_of_a_whole_axis(self):
        position, block = Leg("w", np.arange(6)).positions(3)
        assert position.tolist() == [[0, 1, 2], [3, 4, 5]]
        assert block.tolist() == [0, 1]

    def test_copies_come_in_the_order_of_the_entries(self):
        position, block = Leg("w", np.array([[0, 0, 1, 1]])).positions(2)
        assert position.tolist() == [[0, 2], [1, 3]]
        assert block.tolist() == [0, 0]

    def test_coordinate_order_and_gaps(self):
        position, block = Leg("w", np.array([2, -1, 0, 1])).positions(3)
        assert position.tolist() == [[2, 3, 0]]
        assert block.tolist() == [0]

    def test_every_entry_occurs_once(self):
        position, _ = Leg("w", np.array([[0, 1, 0], [1, -1, -1]])).positions(2)
        assert sorted(position.reshape(-1).tolist()) == [0, 1, 2, 3]

    def test_unequal_copies_are_refused(self):
        with pytest.raises(SymmetryError) as error:
            Leg("w", np.array([0, 0, 1])).positions(2)
        assert str(error.value) == (
            "Expected every coordinate of block 0 equally often in 'w', got counts [2, 1]. "
            "Such an axis can only be scaled."
        )

    def test_missing_coordinate_is_refused(self):
        with pytest.raises(SymmetryError, match="equally often in 'w'"):
            Leg("w", np.array([0, 1])).positions(3)
