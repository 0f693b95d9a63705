"""The path norm: a control that no scaling of units changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from gaugefix.errors import SettingError
from gaugefix.regularizers.base import GaugeTerm, register_term
from gaugefix.regularizers.moments import moment_map
from gaugefix.slices.term import Seat, Term, values
from gaugefix.symmetry import GaugeGroup


@register_term("path_norm")
class PathNorm(GaugeTerm):
    """R = Σ_paths Π w² over all paths from an input or a bias through scaled units to an output.

    It is read off the gauge group: a parameter with a vector leg on one class of units and a covector leg on another is
    a step of paths from the one to the other. The classes must form a feedforward order, so residual streams are
    refused, and every scaled parameter must step once.
    """

    condition = "none: it is the same everywhere on an orbit of the scalings (control)"
    freedom = "all scalings"
    changes_function = True
    cost = "a forward and a backward pass of one example with squared weights"
    source = "Neyshabur, Salakhutdinov and Srebro, Path-SGD, arXiv 1506.02617"

    def value(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Tensor:
        balance = moment_map(gauge).balance
        steps = [_step(term) for term in balance.terms]
        sizes = dict(balance.classes.values())
        reached: dict[int, Tensor] = {}
        paths: list[Tensor] = []
        for start in (*_order(steps, list(sizes)), None):
            arriving = []
            for term, (onto, source) in zip(balance.terms, steps, strict=True):
                if (onto.start if onto else None) != start:
                    continue
                square = values(term, tensors).square()
                if source is not None:
                    square = square * source.leg.spread(reached[source.start].to(square.dtype), 1.0)
                if onto is None:
                    paths.append(square.sum())
                    continue
                idle = [k for k, n in enumerate(onto.leg.index.shape) if n == 1 and square.shape[k] > 1]
                arriving.append(onto.leg.collect(square.sum(idle, keepdim=True) if idle else square, onto.size))
            if start is not None:
                reached[start] = torch.stack(arriving).sum(0) if arriving else paths_from_outside(sizes[start], tensors)
        return torch.stack([p.to(paths[0].dtype) for p in paths]).sum()

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
        _order([_step(term) for term in source.balance.terms], list(dict(source.balance.classes.values())))


def paths_from_outside(size: int, tensors: Mapping[str, Tensor]) -> Tensor:
    """One path into every unit of a class that no parameter leads to."""
    return next(iter(tensors.values())).new_ones(size)


def _step(term: Term) -> tuple[Seat | None, Seat | None]:
    """The class that a parameter leads to, and the one that it comes from."""
    seats = [seat for side in term.sides for seat in side.seats]
    onto = [seat for seat in seats if seat.leg.power == 1]
    source = [seat for seat in seats if seat.leg.power == -1]
    whole = all(int(seat.leg.index.min()) >= 0 for seat in seats)
    if len(onto) > 1 or len(source) > 1 or len(onto) + len(source) < len(seats) or not whole:
        raise SettingError(
            f"Expected one step of paths for '{term.parameter}' in the term 'path_norm', got a parameter that leads to "
            "or comes from several classes of units. Use product_of_norms."
        )
    return (onto[0] if onto else None), (source[0] if source else None)


def _order(steps: list[tuple[Seat | None, Seat | None]], classes: list[int]) -> Iterator[int]:
    """The classes, each behind those that lead to it."""
    before = {start: {s.start for o, s in steps if o and s and o.start == start} for start in classes}
    done: list[int] = []
    while len(done) < len(classes):
        ready = [start for start in classes if start not in done and before[start] <= set(done)]
        if not ready:
            raise SettingError(
                "Expected units in a feedforward order for the term 'path_norm', got a cycle (a residual stream feeds "
                "itself). Use product_of_norms."
            )
        done += ready
    return iter(done)
