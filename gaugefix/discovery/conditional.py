"""What holds where no gain is zero: rotations of residual streams, and norms' shifts in place of biases."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from gaugefix.discovery.interpreter import Assumptions, Pass
from gaugefix.discovery.read_rotations import read_rotations
from gaugefix.discovery.read_shifts import read_shifts
from gaugefix.groups import Orthogonal
from gaugefix.symmetry import Exactness, ResidualRotation, ShiftSymmetry, Symmetry


@dataclass(frozen=True)
class _Found:
    """What one pass with conjugated gains holds.

    Args:
        rotations: of residual streams.
        shifts: all families, if some of them need a gain; none otherwise.
    """

    rotations: list[ResidualRotation]
    shifts: list[ShiftSymmetry]


def conditional(
    known: list[Symmetry], run: Callable[[Assumptions], Pass], order: Iterable[str], dropout: bool
) -> list[Symmetry]:
    """Return what ``known`` does not hold, exact ones first.

    Args:
        known: what holds at any gains.
        run: interprets the traces.
        order: names of parameters, in the order of the model.
        dropout: whether there is any.
    """
    calm = (
        _find(run(Assumptions(gains="conjugated", dropout=False)), order, Exactness.DROPOUT_FREE) if dropout else None
    )
    if calm is not None and not calm.rotations and not calm.shifts:
        return []  # what holds with dropout holds without
    plain = sum(_exact_dimension(s) for s in known if isinstance(s, ShiftSymmetry))
    exact = _new(known, plain, _find(run(Assumptions(gains="conjugated")), order, Exactness.EXACT))
    if calm is None:
        return exact
    moving = {s.parameters for s in exact}
    plain = sum(s.dimension for s in [*known, *exact] if isinstance(s, ShiftSymmetry))
    return exact + [s for s in _new([*known, *exact], plain, calm) if s.parameters not in moving]


def _find(ctx: Pass, order: Iterable[str], exactness: Exactness) -> _Found:
    needed = any(leg.along is not None for leg in ctx.shifts.legs)
    return _Found(read_rotations(ctx, order, exactness), read_shifts(ctx.shifts, exactness) if needed else [])


def _new(known: list[Symmetry], plain: int, found: _Found) -> list[Symmetry]:
    """What is new among ``found``; ``plain``: how many dimensions of shifts are known."""
    taken = {s.parameters for s in known if isinstance(s.group, Orthogonal)}
    names = {s.name for s in known}
    inside = {}
    for s in (s for s in found.shifts if s.conditional):
        within = [k for k in known if isinstance(k, ShiftSymmetry) and set(k.parameters) <= set(s.parameters)]
        inside[s.name] = sum(k.dimension for k in within)
    # Families that move more parameters than before may count what is known: all of them hold no more than this.
    new = {s.name: s.dimension - inside[s.name] for s in found.shifts if s.dimension > inside.get(s.name, s.dimension)}
    excess = sum(new.values()) - (sum(s.dimension for s in found.shifts) - plain)
    for name in sorted(new, key=lambda name: name not in names):
        taken_back = min(max(excess, 0), new[name])
        new[name] -= taken_back
        excess -= taken_back
    result: list[Symmetry] = [s for s in found.rotations if s.parameters not in taken]
    for s in (s for s in found.shifts if new.get(s.name, 0) > 0):
        name = s.name if s.name not in names else f"{s.name} (no bias)"
        names.add(name)
        result.append(replace(s, name=name, overlap=s.dimension - new[s.name]))
    return result


def _exact_dimension(shift: ShiftSymmetry) -> int:
    if shift.exactness is Exactness.EXACT:
        return shift.dimension
    return sum(part.dimension for part in shift.exact_part)
