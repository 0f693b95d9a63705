"""Say by name what keeps the states of a neural ODE from mixing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, fx, nn

from gaugefix.discovery.call import Call
from gaugefix.discovery.capture import Capture, canonical_names, capture
from gaugefix.discovery.components import Components, components
from gaugefix.discovery.fusion import fusions
from gaugefix.discovery.grouping import distinct
from gaugefix.discovery.interpreter import Assumptions, Pass
from gaugefix.discovery.labels import MIX, ZERO, Ints, Labels
from gaugefix.discovery.modes import without_repeats
from gaugefix.discovery.rules import find
from gaugefix.discovery.value import Value

_STATE = "gaugefix.state.default"


@dataclass(frozen=True)
class StateBlockers:
    """What breaks GL(n) on the states of one solve.

    Args:
        solve: the line of code that asks for it.
        channels: number n of channels of the state.
        reasons: the operations, each with its place in the model, its property and its line; none if the states mix.
    """

    solve: str
    channels: int
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        if not self.reasons:
            return f"{self.solve}: all {self.channels} channels mix"
        return "\n".join([f"{self.solve}: {self.channels} channels do not mix", *(f"  {why}" for why in self.reasons)])


def state_blockers(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
) -> tuple[StateBlockers, ...]:
    """Return for every state that a solver of torchdiffeq moves what keeps its channels from mixing.

    The linear group on the state axis needs a linear encoder and decoder, and a field that reads the state through
    weights only. Where ``discover`` finds less, this names the operations in between.

    Args:
        model: any module; left as it is.
        args: example positional inputs.
        kwargs: example keyword inputs.

    Raises:
        DiscoveryError: if the model cannot be traced.

    Example:
        >>> import torch
        >>> from torchdiffeq import odeint
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.encoder, self.inner, self.decoder = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        ...     def forward(self, u):
        ...         field = lambda t, x: torch.tanh(self.inner(x))
        ...         return self.decoder(odeint(field, self.encoder(u), torch.tensor([0.0, 1.0]))[-1])
        >>> print(state_blockers(Net(), (torch.randn(3, 5),))[0].reasons[0].split(":")[0])
        aten.tanh in Net
    """
    canonical = canonical_names(model)
    parameters = {n: p for n, p in model.named_parameters(remove_duplicate=False) if canonical[n] == n}
    return blockers_in(without_repeats(capture(model, args, kwargs)), parameters)


def blockers_in(captures: Sequence[Capture], parameters: Mapping[str, nn.Parameter]) -> tuple[StateBlockers, ...]:
    """Return the same for a model that has been traced.

    Args:
        captures: its traces.
        parameters: canonical name → parameter.
    """
    if not any(str(node.target) == _STATE for trace in captures for node in trace.nodes()):
        return ()
    trainable = frozenset(n for n, p in parameters.items() if p.requires_grad)
    labels = _Noting()
    ctx = _NotingPass(Assumptions(), trainable, parameters, labels)
    for trace in captures:
        ctx.run(trace, find, fusions(trace))
    labels.note_sums()
    found = components(labels)
    states = _states(captures, ctx)
    return tuple(dict.fromkeys(_blockers(node, value, labels, found) for node, value in states))


@dataclass(eq=False)
class _Noting(Labels):
    """Labels that remember which operation has taken the mixing away.

    Args:
        operation: what is interpreted now, and its line of code.
        notes: labels that do not mix, and why.
        sums: by which operation each of the fibres is.
    """

    operation: tuple[str, str] = ("", "")
    notes: list[tuple[Ints, str]] = field(default_factory=list)
    sums: list[str] = field(default_factory=list)

    def restrict(self, labels: Tensor, actions: int, reason: str) -> None:
        super().restrict(labels, actions, reason)
        if not actions & MIX:
            self.notes.append((distinct(labels.numpy()), self.because(reason)))

    def because(self, reason: str) -> str:
        """The reason, with the place where it holds."""
        place, line = self.operation
        reason = reason.removeprefix(place.split(" ")[0] + ": ")
        return (f"{place}: {reason}" if place else f"a state {reason}") + (f" [{line}]" if line else "")

    def note_sums(self) -> None:
        """Note that the fibres since the last time are by this operation."""
        why = self.because("tells channels apart") if self.operation[0] else "a weight has some of the channels only"
        self.sums += [why] * (len(self.fibres) - len(self.sums))


@dataclass(eq=False)
class _NotingPass(Pass):
    """A pass that says where it is."""

    def _by_rule(self, call: Call, rule: Any, inputs: list[Value]) -> Any:
        assert isinstance(self.labels, _Noting)
        self.labels.note_sums()
        path, kind = list(call.node.meta.get("nn_module_stack", {"": ("", "the model")}).values())[-1]
        self.labels.operation = f"{call.name} in {path or str(kind).rpartition('.')[2]}", _line(call.node)
        result = super()._by_rule(call, rule, inputs)
        self.labels.note_sums()
        self.labels.operation = "", ""
        return result


def _line(node: fx.Node) -> str:
    """The line of code that a node comes from."""
    lines = (node.meta.get("stack_trace") or "").strip().splitlines()
    return str(lines[-1]).strip() if lines else ""


def _states(captures: Sequence[Capture], ctx: Pass) -> list[tuple[fx.Node, Value]]:
    """The states of all solves, in the first trace that has them."""
    for trace, env in zip(captures, ctx.environments, strict=True):
        states = [node for node in trace.nodes() if str(node.target) == _STATE]
        if states:
            return [(node, env[node]) for node in states if isinstance(env[node], Value)]
    return []


def _blockers(node: fx.Node, value: Value, labels: _Noting, found: Components) -> StateBlockers:
    solve, channels = _line(node) or "a solve", value.shape[-1] if value.shape else 1
    if not value.legs:
        return StateBlockers(solve, channels, ("starts from data or constants, which nothing acts on",))
    inside = np.unique(np.concatenate([found.of[leg.numpy().ravel()] for leg in value.legs]))
    reasons = [why for which, why in labels.notes if np.isin(found.of[which[which > ZERO]], inside).any()]
    if found.selfdual[inside].any():
        reasons.append("what writes the state also reads it (a tied weight), so that only rotations are left")
    for (which, hashes), why in zip(labels.fibres, labels.sums, strict=True):
        key = np.zeros(found.count, np.int64)
        np.add.at(key, found.of[which], hashes)
        if len(np.unique(key[inside])) > 1:
            reasons.append(why)
    return StateBlockers(solve, channels, tuple(dict.fromkeys(reasons)))
