"""The time grid that goes through the times of the outputs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gaugefix.demo.output_grid import output_grid, shares
from gaugefix.errors import FieldError


def rising(gaps: list[float]) -> torch.Tensor:
    """Times from 0 to 1 with gaps in these ratios."""
    ends = torch.tensor([0.0, *gaps], dtype=torch.float64).cumsum(0)
    return ends / ends[-1]


GAPS = st.lists(st.floats(0.05, 1), min_size=1, max_size=6)


@given(GAPS, GAPS, st.integers(0, 12))
def test_grid_rises_has_its_steps_and_goes_through_the_times(gaps, knots, more):
    times = rising(gaps)
    steps = len(gaps) + more
    grid, places = output_grid(times, rising(knots), steps)
    assert len(grid) == steps + 1
    assert bool((grid.diff() > 0).all())
    assert torch.equal(grid[places], times)


@given(GAPS)
def test_without_times_between_the_knots_are_the_grid(gaps):
    grid, places = output_grid(torch.tensor([0.0, 1.0]), rising(gaps), len(gaps))
    assert torch.allclose(grid, rising(gaps), atol=1e-14)
    assert places.tolist() == [0, len(gaps)]


def test_a_fast_clock_gets_more_steps():
    knots = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0])  # five of six intervals in the first half
    grid, places = output_grid(torch.tensor([0.0, 0.5, 1.0]), knots, 6)
    assert places.tolist() == [0, 5, 6]
    assert torch.allclose(grid.float(), knots)


def test_shares_are_largest_remainders_but_at_least_one():
    weights = torch.tensor([0.02, 0.5, 0.48]).numpy()
    assert shares(weights, 8).tolist() == [1, 4, 3]
    assert shares(weights, 3).tolist() == [1, 1, 1]


def test_what_does_not_fit_is_refused():
    ends = torch.tensor([0.0, 1.0])
    with pytest.raises(FieldError, match=r"^Expected rising knots from 0 to 1 for knots, got \[0\.0, 0\.9\]\.$"):
        output_grid(ends, torch.tensor([0.0, 0.9]), 2)
    with pytest.raises(FieldError, match="rising knots"):
        output_grid(ends, torch.tensor([0.0, 0.6, 0.5, 1.0]), 2)
    with pytest.raises(FieldError, match="at least 2 steps for steps, one for each interval, got 1"):
        output_grid(torch.tensor([0.0, 0.5, 1.0]), ends, 1)
