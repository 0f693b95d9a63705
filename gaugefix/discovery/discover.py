"""discover: from a model and example inputs to its gauge group."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
from torch import fx, nn

from gaugefix.discovery.capture import Capture, canonical_names, capture
from gaugefix.discovery.fusion import fusions
from gaugefix.discovery.interpreter import Assumptions, Pass
from gaugefix.discovery.read_heads import read_heads
from gaugefix.discovery.read_kernels import read_kernels
from gaugefix.discovery.read_off import read_linear
from gaugefix.discovery.read_rotations import read_rotations
from gaugefix.discovery.read_shifts import read_shifts
from gaugefix.discovery.rules import find
from gaugefix.discovery.stabilizer import without_stabilizers
from gaugefix.errors import NoEffectWarning
from gaugefix.groups import Orthogonal
from gaugefix.symmetry import (
    Exactness,
    Frozen,
    GaugeGroup,
    LinearSymmetry,
    ShiftSymmetry,
    Symmetry,
    named_tensors,
)


def discover(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> GaugeGroup:
    """Find the gauge group of ``model``: transformations of its parameters that leave its outputs unchanged.

    The model is traced by ``torch.export`` and run on channel labels (DISCOVERY: every operation adds constraints by
    the rule in its row of a table; an operation without a rule freezes what reaches it).

    Args:
        model: any module; left as it is.
        args: example positional inputs; shapes matter, values do not.
        kwargs: example keyword inputs.

    Returns:
        The group as data about names; ``print(gauge)`` shows a table.

    Raises:
        DiscoveryError: if the model cannot be traced.

    Example:
        >>> import torch
        >>> from torch import fx, nn
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> discover(net, (torch.randn(3, 4),)).dimension
        8
    """
    captures = capture(model, args, kwargs)
    analysis = _Analysis(model, captures)
    strict = analysis.run(Assumptions())
    exact = analysis.read(strict, Exactness.EXACT)
    symmetries: list[Symmetry] = exact
    if strict.dropout_seen:
        relaxed = analysis.run(Assumptions(dropout=False))
        symmetries = _merge(exact, analysis.read(relaxed, Exactness.DROPOUT_FREE))
    symmetries += analysis.conditional(symmetries, strict)
    if strict.batch_norms_seen:
        frozen = analysis.run(Assumptions(norms="frozen"))
        symmetries += _only_new(symmetries, read_linear(frozen, analysis.order, Exactness.ONE_MODE, discrete=False))
    if strict.norms_seen:
        free = analysis.run(Assumptions(norms="scale free"))
        symmetries += _only_new(symmetries, read_linear(free, analysis.order, Exactness.EPSILON, discrete=False))
    gauge = analysis.gauge(symmetries, strict)
    if not gauge.applied:
        warnings.warn(
            f"gaugefix found no symmetry in {type(model).__name__}: there is nothing to do. print(gauge) names what "
            "blocks them.",
            NoEffectWarning,
            stacklevel=2,
        )
    return gauge


@dataclass
class _Analysis:
    """A model and its traces, run under several assumptions."""

    model: nn.Module
    captures: tuple[Capture, ...]

    def __post_init__(self) -> None:
        named = dict(self.model.named_parameters(remove_duplicate=False))
        canonical = canonical_names(self.model)
        self.parameters = {name: p for name, p in named.items() if canonical[name] == name}
        self.order = list(self.parameters)
        self.trainable = frozenset(name for name, p in self.parameters.items() if p.requires_grad)
        self.fusions = [fusions(trace) for trace in self.captures]
        self.used: set[str] = set()
        self.uses: Counter[str] = Counter()
        for trace in self.captures:
            uses: Counter[str] = Counter()
            for node in trace.nodes():
                if node.op == "placeholder" and node.name in trace.parameters and node.users:
                    self.used.add(trace.parameters[node.name])
                for source in node.args if node.op == "call_function" else ():
                    for name in _parameters_in(source, trace):
                        uses[name] += 1
            self.uses |= uses  # the same use in two modes counts once

    def run(self, assumptions: Assumptions) -> Pass:
        ctx = Pass(assumptions, self.trainable, self.parameters, uses=self.uses)
        for trace, fused in zip(self.captures, self.fusions, strict=True):
            ctx.run(trace, find, fused)
        return ctx

    def read(self, ctx: Pass, exactness: Exactness) -> list[Symmetry]:
        found: list[Symmetry] = list(read_linear(ctx, self.order, exactness))
        found += read_heads(ctx, self.order, exactness)
        found += read_shifts(ctx.shifts, exactness)
        found += read_kernels(ctx, exactness)
        return found

    def conditional(self, known: list[Symmetry], strict: Pass) -> list[Symmetry]:
        """What holds where no gain is zero: rotations of residual streams, norms' shifts in place of biases."""
        if not strict.norms_seen:
            return []
        plain = sum(_exact_dimension(s) for s in known if isinstance(s, ShiftSymmetry))
        exact = self._conditional(known, plain, Assumptions(gains="conjugated"), Exactness.EXACT)
        if strict.dropout_seen:
            relaxed = Assumptions(gains="conjugated", dropout=False)
            moving = {s.parameters for s in exact}
            plain = sum(s.dimension for s in [*known, *exact] if isinstance(s, ShiftSymmetry))
            found = self._conditional([*known, *exact], plain, relaxed, Exactness.DROPOUT_FREE)
            exact += [s for s in found if s.parameters not in moving]
        return exact

    def _conditional(
        self, known: list[Symmetry], plain: int, assumptions: Assumptions, exactness: Exactness
    ) -> list[Symmetry]:
        """What is new under these assumptions; ``plain``: how many dimensions of shifts are known."""
        ctx = self.run(assumptions)
        taken = {s.parameters for s in known if isinstance(s.group, Orthogonal)}
        rotations = [s for s in read_rotations(ctx, self.order, exactness) if s.parameters not in taken]
        every = read_shifts(ctx.shifts, exactness)
        names = {s.name for s in known}
        old = {}
        for s in (s for s in every if s.conditional):
            inside = [k for k in known if isinstance(k, ShiftSymmetry) and set(k.parameters) <= set(s.parameters)]
            old[s.name] = sum(k.dimension for k in inside)
        # Families that move more parameters than before may count what is known: all of them hold no more than this.
        new = {s.name: s.dimension - old[s.name] for s in every if s.conditional and s.dimension > old[s.name]}
        excess = sum(new.values()) - (sum(s.dimension for s in every) - plain)
        for name in sorted(new, key=lambda name: name not in names):
            taken_back = min(max(excess, 0), new[name])
            new[name] -= taken_back
            excess -= taken_back
        result: list[Symmetry] = list(rotations)
        for s in (s for s in every if new.get(s.name, 0) > 0):
            name = s.name if s.name not in names else f"{s.name} (no bias)"
            names.add(name)
            result.append(replace(s, name=name, overlap=s.dimension - new[s.name]))
        return result

    def gauge(self, symmetries: list[Symmetry], strict: Pass) -> GaugeGroup:
        tensors = named_tensors(self.model)
        names = {name for s in symmetries for name in s.reads}
        for s in symmetries:
            if isinstance(s, (LinearSymmetry, ShiftSymmetry)):
                names |= {name for part in s.exact_part for name in part.reads}
        moved = {name for s in symmetries if s.exactness.applied for name in s.parameters}
        shapes = {name: tuple(tensors[name].shape) for name in sorted(names)}
        return GaugeGroup(
            tuple(without_stabilizers(_named_apart(symmetries), shapes)),
            shapes,
            tuple(Frozen(name, self._reason(name, strict)) for name in self.order if name not in moved),
            tuple(sorted(strict.unknown)),
            strict.dropout_seen,
        )

    def _reason(self, name: str, ctx: Pass) -> str:
        if name not in self.used:
            return "unused: no output depends on it"
        if name not in self.trainable:
            return "requires_grad=False"
        if name not in ctx.legs or not ctx.legs[name]:
            return "no axis with more than one channel"
        labels = {int(v) for leg in ctx.legs[name] for v in np.unique(leg.numpy())}
        reasons = Counter(why for which, why in ctx.labels.reasons if labels & set(which.tolist()))
        return "; ".join(reason for reason, _ in reasons.most_common(2)) or "tied to channels that are fixed"


def _exact_dimension(shift: ShiftSymmetry) -> int:
    if shift.exactness is Exactness.EXACT:
        return shift.dimension
    return sum(part.dimension for part in shift.exact_part)


def _named_apart(symmetries: list[Symmetry]) -> list[Symmetry]:
    """Number the symmetries that would have the same name."""
    taken = {s.name for s in symmetries}
    seen: set[str] = set()
    result = []
    for s in symmetries:
        name = s.name
        if name in seen:
            name = next(f"{name}.{k}" for k in count(2) if f"{name}.{k}" not in taken)
        seen.add(name)
        taken.add(name)
        result.append(s if name == s.name else replace(s, name=name))
    return result


def _parameters_in(item: Any, trace: Capture) -> list[str]:
    if isinstance(item, (list, tuple)):
        return [name for part in item for name in _parameters_in(part, trace)]
    if isinstance(item, fx.Node) and item.op == "placeholder" and item.name in trace.parameters:
        return [trace.parameters[item.name]]
    return []


def _shape_of(symmetry: Symmetry) -> tuple[object, ...]:
    return (type(symmetry).__name__, symmetry.group, symmetry.parts, symmetry.name)


def _merge(exact: list[Symmetry], relaxed: list[Symmetry]) -> list[Symmetry]:
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
        if isinstance(s, LinearSymmetry) and s.exactness is Exactness.DROPOUT_FREE:
            linear = [r for r in rest if isinstance(r, LinearSymmetry)]
            inside = tuple(r for r in linear if set(r.parameters) <= set(s.parameters) and _within(r, s))
            s = replace(s, exact_part=inside)
        elif isinstance(s, ShiftSymmetry) and s.exactness is Exactness.DROPOUT_FREE:
            shifts = [r for r in rest if isinstance(r, ShiftSymmetry)]
            s = replace(s, exact_part=tuple(r for r in shifts if set(r.parameters) <= set(s.parameters)))
        result.append(s)
    return result


def _within(part: Symmetry, whole: LinearSymmetry) -> bool:
    """Whether every entry that ``part`` moves is moved by ``whole``."""
    assert isinstance(part, LinearSymmetry)
    covered = {leg.parameter: leg for leg in whole.legs}
    return all(
        leg.parameter in covered and bool(np.all((covered[leg.parameter].index >= 0) | (leg.index < 0)))
        for leg in part.legs
        if leg.index.shape == covered[leg.parameter].index.shape
    )


def _only_new(known: list[Symmetry], found: list[LinearSymmetry]) -> list[Symmetry]:
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
