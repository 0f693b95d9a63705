"""discover: from a model and example inputs to its gauge group."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import fx, nn

from gaugefix.discovery.blockers import blockers_in
from gaugefix.discovery.capture import Capture, canonical_names, capture
from gaugefix.discovery.combine import merge, named_apart, only_new
from gaugefix.discovery.conditional import conditional
from gaugefix.discovery.fusion import fusions
from gaugefix.discovery.interpreter import Assumptions, Pass
from gaugefix.discovery.modes import without_repeats
from gaugefix.discovery.read_heads import read_heads
from gaugefix.discovery.read_kernels import read_kernels
from gaugefix.discovery.read_off import read_linear, reader_of
from gaugefix.discovery.read_shifts import read_shifts
from gaugefix.discovery.rules import find
from gaugefix.discovery.stabilizer import without_stabilizers
from gaugefix.errors import NoEffectWarning
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

    The model is traced by ``torch.export`` and run on channel labels (every operation adds constraints by
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
    analysis = _Analysis(model, without_repeats(capture(model, args, kwargs)))
    strict = analysis.run(Assumptions())
    exact = analysis.read(strict, Exactness.EXACT)
    symmetries: list[Symmetry] = exact
    if strict.dropout_seen:
        relaxed = analysis.run(Assumptions(dropout=False))
        symmetries = merge(exact, analysis.read(relaxed, Exactness.DROPOUT_FREE))
    if strict.norms_seen:
        symmetries += conditional(symmetries, analysis.run, analysis.order, strict.dropout_seen)
    if strict.batch_norms_seen:
        frozen = analysis.run(Assumptions(norms="frozen"))
        symmetries += only_new(symmetries, analysis.continuous(frozen, Exactness.ONE_MODE))
    if strict.norms_seen:
        free = analysis.run(Assumptions(norms="scale free"))
        symmetries += only_new(symmetries, analysis.continuous(free, Exactness.EPSILON))
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
        reader = reader_of(ctx, self.order, exactness)
        found: list[Symmetry] = [*read_linear(ctx, reader), *read_heads(ctx, reader)]
        return [*found, *read_shifts(ctx.shifts, exactness), *read_kernels(ctx, exactness)]

    def continuous(self, ctx: Pass, exactness: Exactness) -> list[LinearSymmetry]:
        return read_linear(ctx, reader_of(ctx, self.order, exactness), discrete=False)

    def gauge(self, symmetries: list[Symmetry], strict: Pass) -> GaugeGroup:
        tensors = named_tensors(self.model)
        names = {name for s in symmetries for name in s.reads}
        for s in symmetries:
            if isinstance(s, (LinearSymmetry, ShiftSymmetry)):
                names |= {name for part in s.exact_part for name in part.reads}
        moved = {name for s in symmetries if s.exactness.applied for name in s.parameters}
        shapes = {name: tuple(tensors[name].shape) for name in sorted(names)}
        return GaugeGroup(
            tuple(without_stabilizers(named_apart(symmetries), shapes)),
            shapes,
            tuple(Frozen(name, self._reason(name, strict)) for name in self.order if name not in moved),
            tuple(sorted(strict.unknown)),
            strict.dropout_seen,
            tuple(str(state) for state in blockers_in(self.captures, self.parameters) if state.reasons),
        )

    def _reason(self, name: str, ctx: Pass) -> str:
        if name not in self.used:
            return "unused: no output depends on it"
        if name not in self.trainable:
            return "requires_grad=False"
        if name not in ctx.legs or not ctx.legs[name]:
            return "no axis with more than one channel"
        own = np.zeros(ctx.labels.count, bool)
        for leg in ctx.legs[name]:
            own[leg.numpy()] = True
        reasons = Counter(why for which, why in ctx.labels.reasons if own[which].any())
        return "; ".join(reason for reason, _ in reasons.most_common(2)) or "tied to channels that are fixed"


def _parameters_in(item: Any, trace: Capture) -> list[str]:
    if isinstance(item, (list, tuple)):
        return [name for part in item for name in _parameters_in(part, trace)]
    if isinstance(item, fx.Node) and item.op == "placeholder" and item.name in trace.parameters:
        return [trace.parameters[item.name]]
    return []
