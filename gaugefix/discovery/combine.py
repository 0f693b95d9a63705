"""Put together what is found under different assumptions."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np

from gaugefix.symmetry import Exactness, LinearSymmetry, ShiftSymmetry, Symmetry


def _shape_of(symmetry: Symmetry) -> tuple[object, ...]:
    return (type(symmetry).__name__, symmetry.group, symmetry.parts, symmetry.name)


def merge(exact: list[Symmetry], relaxed: list[Symmetry]) -> list[Symmetry]:
    """Symmetries found without dropout: those found with dropout too are exact; the rest knows its exact part."""
    known = {_shape_of(s): s for s in exact}
    merged: list[Symmetry] = []
    matched: set[int] = set()
    for s in relaxed:
        same = known.get(_shape_of(s))
        if same is not None:
            matched.add(id(same))
        merged.append(same or s)
    rest = [s for s in exact if id(s) not in matched]
    result: list[Symmetry] = []
    for s in merged:
        if isinstance(s, (LinearSymmetry, ShiftSymmetry)) and s.exactness is Exactness.DROPOUT_FREE:
            inside = tuple(r for r in rest if _within(r, s))
            rest = [r for r in rest if r not in inside]  # each is a part of one
            s = replace(s, exact_part=inside)
        result.append(s)
    return result


def _within(part: Symmetry, whole: LinearSymmetry | ShiftSymmetry) -> bool:
    """Whether every entry that ``part`` moves is moved by ``whole``, in the same way."""
    if type(part) is not type(whole) or not set(part.parameters) <= set(whole.parameters):
        return False
    if not isinstance(part, LinearSymmetry) or not isinstance(whole, LinearSymmetry):
        return True
    if part.group.dimension and not whole.group.dimension:
        return False
    covered = {leg.parameter: leg for leg in whole.legs}
    return all(
        leg.parameter in covered and bool(np.all((covered[leg.parameter].index >= 0) | (leg.index < 0)))
        for leg in part.legs
        if leg.index.shape == covered[leg.parameter].index.shape
    )


def only_new(known: list[Symmetry], found: list[LinearSymmetry]) -> list[Symmetry]:
    """Keep the symmetries of looser assumptions that move channels which nothing moved before."""
    taken: dict[tuple[str, tuple[int, ...]], list[Any]] = {}
    names = {s.name for s in known}
    for s in known:
        if isinstance(s, LinearSymmetry) and s.group.dimension:
            for leg in s.legs:
                taken.setdefault((leg.parameter, leg.axes), []).append(leg.index >= 0)
    fresh: list[Symmetry] = []
    for s in found:
        if not s.group.dimension:
            continue
        legs = [leg for leg in s.legs if not leg.buffer]
        if all(
            any(bool((np.asarray(mask) & (leg.index >= 0)).any()) for mask in taken.get((leg.parameter, leg.axes), []))
            for leg in legs
        ):
            continue
        name = s.name if s.name not in names else f"{s.name} ({s.exactness.value})"
        names.add(name)
        fresh.append(replace(s, name=name))
    return fresh


def named_apart(symmetries: list[Symmetry]) -> list[Symmetry]:
    """Number the symmetries that would have the same name, now or where dropout leaves a part of some."""
    parts = [p for s in symmetries if isinstance(s, (LinearSymmetry, ShiftSymmetry)) for p in s.exact_part]
    reserved = {p.name for p in parts}
    taken = {s.name for s in symmetries} | reserved
    seen: set[str] = set()
    result = []
    for s in symmetries:
        name = s.name
        if name in seen or (name in reserved and s.exactness is not Exactness.DROPOUT_FREE):
            name = next(f"{name}.{k}" for k in count(2) if f"{name}.{k}" not in taken)
        seen.add(name)
        taken.add(name)
        result.append(s if name == s.name else replace(s, name=name))
    return result
