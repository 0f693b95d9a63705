"""The path norm: a control that no scaling of units changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from gaugefix.errors import SettingError
from gaugefix.regularizers.base import GaugeTerm, register_term, total
from gaugefix.regularizers.moments import moment_map
from gaugefix.slices.second_moment import coordinate_sums
from gaugefix.slices.term import Seat, Term, values
from gaugefix.symmetry import GaugeGroup


@register_term("path_norm")
class PathNorm(GaugeTerm):
    """R = Σ_paths Π w² over all paths from an input or a bias through scaled units to an output.

    It is read off the gauge group: a parameter with a vector leg on one class of units and a covector leg on another is
    a step of paths from the one to the other. The classes must form a feedforward order, so residual streams are
    refused.
    """

    condition = "none: it is the same everywhere on an orbit of the scalings (control)"
    freedom = "all scalings"
    changes_function = "yes, and only that"
    invariant = True
    cost = "a forward and a backward pass of one example with squared weights"
    source = "Neyshabur, Salakhutdinov and Srebro, Path-SGD, arXiv 1506.02617"

    def value(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Tensor:
        balance = moment_map(gauge).balance
        steps = [Step(term) for term in balance.terms]
        sizes = dict(balance.classes.values())
        reached: dict[int, Tensor] = {}
        for start in _order(steps, list(sizes)):
            found = [part for step in steps for part in step.arriving(start, tensors, reached)]
            outside = next(iter(tensors.values())).new_ones(sizes[start])  # units that no parameter leads to
            reached[start] = torch.stack(found).sum(0) if found else outside
        return total([step.ending(tensors, reached) for step in steps])

    def check(self, gauge: GaugeGroup) -> None:
        source = moment_map(gauge)
        if not source.balance.size:
            raise SettingError(
                "Expected units that scale for the term 'path_norm', got a gauge group without them. Use l2, or "
                "nuclear_norm for blocks."
            )
        mixed = {leg.parameter for s in source.blocks for leg in s.legs}
        for term in source.balance.terms:
            if term.parameter in mixed:
                raise SettingError(
                    f"Expected parameters that only scale for the term 'path_norm', got '{term.parameter}', which also "
                    "mixes. Use product_of_norms."
                )
        _order([Step(term) for term in source.balance.terms], list(dict(source.balance.classes.values())))


class Step:
    """One parameter as steps of paths: the classes that its entries lead to, and those that they come from.

    Raises:
        SettingError: if one entry leads to, or comes from, several classes.
    """

    def __init__(self, term: Term) -> None:
        self.term = term
        seats = [seat for side in term.sides for seat in side.seats]
        self.onto = [seat for seat in seats if seat.leg.power == 1]
        self.source = [seat for seat in seats if seat.leg.power == -1]
        crowded = any(_overlap(side) for side in (self.onto, self.source))
        if crowded or len(self.onto) + len(self.source) < len(seats):
            raise SettingError(
                f"Expected one step of paths for '{term.parameter}' in the term 'path_norm', got a parameter whose "
                "entries lead to or come from several classes of units. Use product_of_norms."
            )

    def arriving(self, start: int, tensors: Mapping[str, Tensor], reached: Mapping[int, Tensor]) -> Iterator[Tensor]:
        """Paths that this parameter brings into the units of one class."""
        for seat in self.onto:
            if seat.start == start:
                yield coordinate_sums(seat.leg, self._paths(tensors, reached), seat.size)

    def ending(self, tensors: Mapping[str, Tensor], reached: Mapping[int, Tensor]) -> Tensor:
        """Paths that end with an entry of this parameter: those that lead to no unit."""
        paths = self._paths(tensors, reached)
        for seat in self.onto:
            paths = paths * seat.leg.spread(paths.new_zeros(seat.size), 1.0)
        return paths.sum()

    def _paths(self, tensors: Mapping[str, Tensor], reached: Mapping[int, Tensor]) -> Tensor:
        paths = values(self.term, tensors).square()
        for seat in self.source:
            paths = paths * seat.leg.spread(reached[seat.start].to(paths.dtype), 1.0)
        return paths


def _overlap(seats: list[Seat]) -> bool:
    """Whether some entry has a leg on several classes."""
    covered = [(seat.leg.index >= 0).astype(int) for seat in seats]
    return len(covered) > 1 and int(sum(covered[1:], covered[0]).max()) > 1


def _order(steps: list[Step], classes: list[int]) -> list[int]:
    """The classes, each behind those that lead to it."""
    before: dict[int, set[int]] = {start: set() for start in classes}
    for step in steps:
        for seat in step.onto:
            before[seat.start] |= {source.start for source in step.source}
    done: list[int] = []
    while len(done) < len(classes):
        ready = [start for start in classes if start not in done and before[start] <= set(done)]
        if not ready:
            raise SettingError(
                "Expected units in a feedforward order for the term 'path_norm', got a cycle (a residual stream feeds "
                "itself). Use product_of_norms."
            )
        done += ready
    return done
