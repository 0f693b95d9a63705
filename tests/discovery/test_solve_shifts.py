"""Shifts: the solutions are all solutions, and evaluating them solves the equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gaugefix.discovery.shifts import Derived, Shifts, Terms
from gaugefix.discovery.solve_shifts import solve
from gaugefix.symmetry import ChannelMap

WIDTH, POSITIONS = 3, 4


class Demands:
    """Random demands on a stream of shifts, given to the solver and kept as they are."""

    def __init__(self, seed: int, maps: bool) -> None:
        self.random = np.random.default_rng(seed)
        self.shifts = Shifts()
        self.ones: list[Terms] = []  # sums that have to be multiples of ones along the last axis
        self.pinned: list[Terms] = []
        stream: Terms = []
        for k in range(self.random.integers(2, 6)):
            new = self.value(k, maps and bool(stream), stream)
            stream = stream + new if self.random.random() < 0.5 else new + stream
            if self.random.random() < 0.7:
                self.ones.append(stream)
                self.shifts.multiple_of_ones(stream, 2)
            if self.random.random() < 0.15:
                self.pin(new if self.random.random() < 0.5 else stream)

    def value(self, k: int, maps: bool, stream: Terms) -> Terms:
        """A new value of the stream: free, one that varies over positions, a multiple, or a map of what is there."""
        kind = self.random.integers(0, 5)
        if kind == 0:
            return [(1.0, self.shifts.fresh(f"p{k}", 1, POSITIONS, WIDTH))]
        if kind == 1 and maps:
            source = [(c, i.reshape(-1)) for c, i in stream if i.shape == (1, 1, WIDTH)][:2]
            if source:
                target = self.shifts.fresh(f"w{k}", WIDTH)
                terms = [(c, i.numpy()) for c, i in source]
                self.shifts.derived.append(Derived(target.numpy(), ChannelMap(f"w{k}"), terms))
                return [(1.0, target.reshape(1, 1, WIDTH))]
        return [(float(self.random.choice([1.0, -1.0, 0.5])), self.shifts.fresh(f"b{k}", 1, 1, WIDTH))]

    def pin(self, terms: Terms) -> None:
        self.pinned.append(terms)
        self.shifts.pin(terms)

    def rows(self, t: Tensor) -> Tensor:
        """What has to vanish, for a vector t of unknowns."""
        values = [sum(c * t[i] for c, i in terms).expand(1, POSITIONS, WIDTH) for terms in self.pinned]
        for terms in self.ones:
            total = sum(c * t[i] for c, i in terms).expand(1, POSITIONS, WIDTH)
            values.append(total - total.mean(-1, keepdim=True))
        return torch.cat([v.reshape(-1) for v in values]) if values else t.new_zeros(1)

    def solution(self) -> tuple[np.ndarray, Tensor]:
        """(which unknowns are free, a random solution)."""
        solution, order = solve(self.shifts)
        free = ~solution.zero
        for index in [*(s.target for s in solution.solved), *(r.target for r in self.shifts.derived)]:
            free[index] = False
        t = torch.zeros(self.shifts.count, dtype=torch.float64)
        t[free] = torch.from_numpy(self.random.standard_normal(int(free.sum())))
        for step in order:
            if isinstance(step, int):
                record = self.shifts.derived[step]
                weight = torch.from_numpy(self.random.standard_normal((WIDTH, WIDTH)))
                t[record.target] = weight @ sum(c * t[i] for c, i in record.terms)
            else:
                t[step.target] = sum(c * t[i] for c, i in step.terms)
        return free, t


@pytest.mark.parametrize("seed", range(40))
def test_all_solutions(seed):
    demands = Demands(seed, maps=False)
    free, t = demands.solution()
    assert demands.rows(t).abs().max() < 1e-12
    named = np.ones(demands.shifts.count, bool)  # the unknowns that were asked for
    for index in demands.shifts.multiples:
        named[index] = False
    matrix = torch.func.jacrev(demands.rows)(torch.zeros_like(t))[:, named]
    assert free.sum() == named.sum() - torch.linalg.matrix_rank(matrix)


@pytest.mark.parametrize("seed", range(40))
def test_solutions_hold_for_all_weights(seed):
    demands = Demands(seed, maps=True)
    for _ in range(2):
        _, t = demands.solution()
        assert demands.rows(t).abs().max() < 1e-12


def test_maps_survive_where_nothing_depends_on_their_weights():
    """Not vacuous: some shifts pass through maps."""
    moved = 0
    for seed in range(40):
        demands = Demands(seed, maps=True)
        _, t = demands.solution()
        moved += any(bool((t[record.target] != 0).any()) for record in demands.shifts.derived)
    assert moved > 2


def test_a_map_of_its_own_result_is_given_up():
    shifts = Shifts()
    x = shifts.fresh("x", WIDTH)
    y = shifts.fresh("w", WIDTH)
    shifts.derived.append(Derived(y.numpy(), ChannelMap("w"), [(1.0, x.numpy())]))
    shifts.pin([(1.0, x), (-1.0, y)])  # x = W x
    solution, order = solve(shifts)
    assert solution.zero.all()
    assert order == []


def test_many_positions_take_little():
    """A table of positions under many norms: sums of channels and of positions are kept apart."""
    shifts = Shifts()
    stream: Terms = [(1.0, shifts.fresh("tokens", 1, 1, 64)), (1.0, shifts.fresh("positions", 1, 128, 64))]
    shifts.multiple_of_ones(stream, 2)
    for k in range(24):
        stream = [*stream, (1.0, shifts.fresh(f"b{k}", 1, 1, 64))]
        shifts.multiple_of_ones(stream, 2)
    entries = sum(len(equation) * len(equation[0][1]) for equation in shifts.equations)
    assert entries < 4 * 128 * 64
    solution, _ = solve(shifts)
    free = ~solution.zero
    for s in solution.solved:
        free[s.target] = False
    assert free.sum() == 64 + 128 + 24  # tokens against positions, and each value along the ones
