"""All GL blocks of a gauge group, solved together: one batch per size, over symmetries, layers and heads."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, MutableMapping, Sequence

import torch
from torch import Tensor

from gaugefix.groups import GeneralLinear
from gaugefix.sharding import Shards
from gaugefix.slices.block import balance_blocks, full_rank
from gaugefix.slices.parallel import over_parts
from gaugefix.slices.second_moment import second_moments
from gaugefix.symmetry import Leg, LinearSymmetry


class Blocks:
    """GL blocks, sorted into rounds: those of one round share no entry, so that none changes the moments of another.

    Args:
        symmetries: of GL groups.
        loose: parameters that shifts move away; they count in the moments, not in the rank.
    """

    def __init__(self, symmetries: Sequence[LinearSymmetry], loose: Collection[str] = ()) -> None:
        self.symmetries = tuple(symmetries)
        self.loose = frozenset(loose)
        self.rounds = _rounds(self.symmetries)
        self.shares = {s.name: _share(s) for s in self.symmetries}

    @property
    def exact(self) -> bool:
        """Whether one sweep is the solution."""
        return len(self.rounds) <= 1 and not any(_meets_itself(s) for s in self.symmetries)

    def solve(
        self, symmetries: Iterable[LinearSymmetry], tensors: Mapping[str, Tensor]
    ) -> dict[str, tuple[Tensor, float]]:
        """Return g and the largest |log| of its eigenvalues for blocks of one round, by name."""
        found: dict[str, tuple[Tensor, float]] = {}
        for group in _by_size(symmetries):
            # Moments and solutions in one go per thread; but shards are gathered in the same order everywhere.
            if not isinstance(tensors, Shards) and tensors[group[0].legs[0].parameter].device.type == "cpu":
                parts = over_parts(lambda part: self._solve(part, tensors), group, [s.group.shape[0] for s in group])
            else:
                parts = [self._solve(group, tensors)]
            for part in parts:
                found.update(part)
        return found

    def _solve(self, group: Sequence[LinearSymmetry], tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, float]]:
        """The same for symmetries of one size."""
        moments = [second_moments(s, tensors) for s in group]
        a, b = (torch.cat(parts) for parts in zip(*moments, strict=True))
        counts = [s.group.shape[0] for s in group]
        share = torch.cat([a.new_full((k,), self.shares[s.name]) for k, s in zip(counts, group, strict=True)])
        g, sizes = balance_blocks(a, b, share, self.regular(group, tensors))
        largest = torch.stack([part.max() for part in torch.split(sizes, counts)]).tolist()
        parts = zip(group, torch.split(g, counts), largest, strict=True)
        return {s.name: (part, size) for s, part, size in parts}

    def regular(self, group: Sequence[LinearSymmetry], tensors: Mapping[str, Tensor]) -> Tensor | None:
        """Blocks of full rank without the biases that a shift moves away; ``None`` where nothing is loose."""
        if not any(leg.parameter in self.loose for s in group for leg in s.legs):
            return None
        moments = [second_moments(s, tensors, self.loose) for s in group]
        return full_rank(torch.cat([a for a, _ in moments])) & full_rank(torch.cat([b for _, b in moments]))

    def sweep(
        self,
        work: MutableMapping[str, Tensor],
        totals: dict[str, Tensor],
        sizes: dict[str, float],
        skip: Collection[str],
    ) -> float:
        """Solve every block once, move ``work``, compose onto ``totals``; return the largest |log|."""
        for symmetries in self.rounds:
            found = self.solve([s for s in symmetries if s.name not in skip], work)
            for s in symmetries:
                if s.name in found:
                    g, sizes[s.name] = found[s.name]
                    work.update(s.act(work, g))
                    totals[s.name] = g @ totals[s.name] if s.name in totals else g
        return max(sizes.values(), default=0.0)

    def imbalance(self, tensors: Mapping[str, Tensor], skip: Collection[str] = ()) -> Tensor:
        """Return Σ ‖A − B‖² over blocks of full rank."""
        total = torch.zeros((), dtype=torch.float64)
        for group in _by_size(s for s in self.symmetries if s.name not in skip):
            moments = [second_moments(s, tensors) for s in group]
            a, b = (torch.cat(parts) for parts in zip(*moments, strict=True))
            regular = self.regular(group, tensors)
            regular = full_rank(a) & full_rank(b) if regular is None else regular
            total = total + ((a - b) * regular[:, None, None]).square().sum().cpu()
        return total


def _by_size(symmetries: Iterable[LinearSymmetry]) -> list[list[LinearSymmetry]]:
    sizes: dict[int, list[LinearSymmetry]] = {}
    for s in symmetries:
        assert isinstance(s.group, GeneralLinear)
        sizes.setdefault(s.group.n, []).append(s)
    return list(sizes.values())


def _rounds(symmetries: Sequence[LinearSymmetry]) -> list[list[LinearSymmetry]]:
    """First-fit colouring of the graph of blocks that share entries."""
    rounds: list[list[LinearSymmetry]] = []
    met: list[dict[str, list[Leg]]] = []
    for s in symmetries:
        free = (k for k, legs in enumerate(met) if not _meet(s, legs))
        k = next(free, len(rounds))
        if k == len(rounds):
            rounds.append([])
            met.append({})
        rounds[k].append(s)
        for leg in s.legs:
            met[k].setdefault(leg.parameter, []).append(leg)
    return rounds


def _meet(symmetry: LinearSymmetry, legs: Mapping[str, Sequence[Leg]]) -> bool:
    return any(_share_entries(leg, other) for leg in symmetry.legs for other in legs.get(leg.parameter, ()))


def _share_entries(one: Leg, two: Leg) -> bool:
    if one.flat and two.flat and one.axes != two.axes:
        return True  # some row and some column always meet
    return bool(((one.index >= 0) & (two.index >= 0)).any())


def _meets_itself(symmetry: LinearSymmetry) -> bool:
    pairs = itertools.combinations(symmetry.legs, 2)
    return any(_share_entries(p, q) for p, q in pairs if p.parameter == q.parameter)


def _share(symmetry: LinearSymmetry) -> float:
    """How far a block may go at once: half if one entry is both vector and covector."""
    ends = [[leg for leg in symmetry.legs if leg.power == power] for power in (1, -1)]
    same = (_share_entries(p, q) for p in ends[0] for q in ends[1] if p.parameter == q.parameter)
    return 0.5 if any(same) else 1.0
