"""Run a captured graph on labels: every operation adds constraints by the rule in its row of the table."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, fx

from gaugefix.discovery.aliasing import aliases, is_mutable
from gaugefix.discovery.call import Call, bind, convolution_layout
from gaugefix.discovery.capture import Capture
from gaugefix.discovery.fusion import Fusion, Fusions
from gaugefix.discovery.fusion.constants import run_node
from gaugefix.discovery.grouping import distinct
from gaugefix.discovery.labels import NOTHING, Heads, Labels
from gaugefix.discovery.shifts import Derived, ParameterShift, Shifts, Terms
from gaugefix.discovery.value import Relation, Source, Value, known, pad_left, values_in
from gaugefix.symmetry import ChannelMap

NormMode = Literal["live", "frozen", "scale free"]
GainMode = Literal["kept", "conjugated"]


@dataclass(frozen=True)
class Assumptions:
    """Under which circumstances a symmetry has to hold.

    Args:
        dropout: whether dropout is active.
        norms: ``"live"``: norms are taken as they are, in train mode and in eval mode; ``"frozen"``: eval mode only
            (a batch norm is an affine map); ``"scale free"``: as if the eps of every norm were 0.
        gains: ``"kept"``: a gain multiplies channels, which then cannot mix; ``"conjugated"``: what a norm lets act on
            its channels acts on the other side of its gain too, conjugated by the gain; and the shift of a norm serves
            the maps that read it as a bias. Neither holds where a gain, or Σβ/γ, is zero.
    """

    dropout: bool = True
    norms: NormMode = "live"
    gains: GainMode = "kept"


@dataclass(eq=False)
class Pass:
    """One run over the graphs of a model under fixed assumptions."""

    assumptions: Assumptions
    trainable: frozenset[str]
    parameters: Mapping[str, Tensor]
    labels: Labels = field(default_factory=Labels)
    shifts: Shifts = field(default_factory=Shifts)
    legs: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)
    statistics: dict[str, tuple[Tensor, int, float]] = field(default_factory=dict)
    offsets: dict[str, float] = field(default_factory=dict)
    unknown: Counter[str] = field(default_factory=Counter)
    uses: Counter[str] = field(default_factory=Counter)
    environments: list[dict[fx.Node, Any]] = field(default_factory=list)
    maps: list[tuple[fx.Node, Value, str]] = field(default_factory=list)
    dropout_seen: bool = False
    norms_seen: bool = False
    batch_norms_seen: bool = False
    aliased: set[fx.Node] = field(default_factory=set)
    fused: set[fx.Node] = field(default_factory=set)
    centring: dict[fx.Node, fx.Node] = field(default_factory=dict)
    _handled: set[int] = field(default_factory=set)
    _carried: set[int] = field(default_factory=set)
    _kept: set[int] = field(default_factory=set)
    _multiplied: set[str] = field(default_factory=set)
    _absorbed: dict[str, tuple[Tensor, Terms, tuple[object, ...]]] = field(default_factory=dict)
    _derived: dict[tuple[object, ...], Tensor] = field(default_factory=dict)
    _followed: dict[str, Terms] = field(default_factory=dict)

    # ---- what rules call -------------------------------------------------------------------------------------------
    def freeze(self, value: Any, reason: str) -> None:
        """Nothing may act on these values, and they may not shift."""
        for v in values_in(value):
            for leg in v.legs:
                self.labels.restrict(leg, NOTHING, reason)
            self.pin(v)
            if v.heads is not None:
                v.heads.reason = reason

    def pin(self, value: Value) -> None:
        """The value may not shift; a parameter used here is no longer a free constant."""
        self.shifts.pin(value.shift)
        self._drop(value.pending)
        if value.source is not None:
            self.shifts.pin_parameter(value.source.name)
            self._multiplied.add(value.source.name)
            self._give_up(value.source.name)

    def shift_of(self, value: Value, ndim: int) -> Terms:
        """Take over responsibility for the shift of ``value``, with index arrays of ``ndim`` axes.

        A parameter that is added is a constant that may shift by anything. Whatever shift a rule does not take over
        is pinned to 0 after the rule has run.
        """
        self._handled.add(id(value))
        terms = list(value.shift)
        if value.source is not None:
            terms.append((1.0, self._table(value.source)))
        return [(c, pad_left(i, ndim)) for c, i in terms]

    def take_over(self, value: Value) -> None:
        """Take over responsibility for the shift of ``value`` without looking at it: it moves with the data."""
        self._handled.add(id(value))

    def carry(self, *values: Value, masked: bool = False) -> list[Terms]:
        """The pending shifts of ``values``, which the result still has (see :class:`Value`); others are pinned.

        Those of masked values only if ``masked``: the rule leaves the masked entries without weight.
        """
        carried = [value for value in values if masked or not value.masked]
        self._carried.update(id(value) for value in carried)
        return [terms for value in carried for terms in value.pending]

    def keep_heads(self, value: Value) -> Heads | None:
        """The heads of ``value``, which the result has in the same place; without this they stay where they are."""
        self._kept.add(id(value))
        return value.heads

    def absorb(self, bias: str, size: int, channel_map: ChannelMap | None, source: Terms) -> Tensor:
        """Unknowns t of y = W x + b, b ← b + t − W·source. In a second trace the same bias absorbs the same."""
        key = _key(channel_map)
        if bias in self._absorbed:
            fresh, before, known = self._absorbed[bias]
            self.shifts.pin(before + [(-c, i) for c, i in source])
            if known != key:  # another weight passes the same shift on as another
                self.shifts.pin(source)
            return fresh
        fresh = self._absorbs(bias, self.shifts.fresh(bias, size), source, key)
        flat = [(c, i.numpy()) for c, i in source]
        self.shifts.legs.append(
            ParameterShift(bias, [(1.0, fresh.numpy())], channel_map if flat else None, flat if channel_map else [])
        )
        return fresh

    def absorb_along(
        self, weight: str, size: int, channel_map: ChannelMap, source: Terms, relation: Relation
    ) -> Tensor:
        """Unknowns t of y = W x for an x with k·x = κ ≠ 0: W ← W + (t − W·source) kᵀ/(κ + k·source)."""
        assert relation.shift is not None
        along = (relation.gain, relation.shift)
        key = (*_key(channel_map), *along)
        if weight in self._absorbed:
            fresh, before, known = self._absorbed[weight]
            self.shifts.pin(before + [(-c, i) for c, i in source])
            if known != key:  # the direction in which another norm leaves its output constant is another
                self._give_up(weight)
            return fresh
        fresh = self._absorbs(weight, self.shifts.fresh(weight, size), source, key)
        flat = [(c, i.numpy()) for c, i in source]
        self.shifts.legs.append(ParameterShift(weight, [(1.0, fresh.numpy())], channel_map, flat, along))
        return fresh

    def rows_shift(self, table: str, size: int) -> Tensor:
        """Unknowns by which all rows of an embedding move."""
        if table not in self._absorbed:
            fresh = self._absorbs(table, self.shifts.fresh(table, size), [], ())
            self.shifts.legs.append(ParameterShift(table, [(1.0, fresh.reshape(1, -1).numpy())]))
        return self._absorbed[table][0]

    def _absorbs(self, name: str, fresh: Tensor, source: Terms, key: tuple[object, ...]) -> Tensor:
        """Note that a parameter absorbs a shift; one that another trace uses otherwise absorbs nothing."""
        self._absorbed[name] = (fresh, source, key)
        if name in self._multiplied or name in self.shifts.tables:
            self._give_up(name)
        return fresh

    def _give_up(self, name: str) -> None:
        if name in self._absorbed:
            fresh, source, _ = self._absorbed[name]
            self.shifts.pin([(1.0, fresh)])
            self.shifts.pin(source)

    def _drop(self, pending: list[Terms]) -> None:
        for terms in pending:
            self.shifts.pin(terms)

    def derive(self, size: int, channel_map: ChannelMap, source: Terms) -> Tensor:
        """Unknowns t = W·source, the same for the same source."""
        key = (*_key(channel_map), *((c, i.numpy().tobytes()) for c, i in source))
        if key not in self._derived:
            fresh = self._derived[key] = self.shifts.fresh(f"{channel_map.weight} · shift", size)
            self.shifts.derived.append(Derived(fresh.numpy(), channel_map, [(c, i.numpy()) for c, i in source]))
        return self._derived[key]

    def follow(self, buffer: str, terms: Terms) -> None:
        """A running mean moves with what it averages; a norm that is used twice averages one thing."""
        if buffer in self._followed:
            self.shifts.pin(self._followed[buffer] + [(-c, i) for c, i in terms])
            return
        self._followed[buffer] = terms
        if terms:
            self.shifts.legs.append(ParameterShift(buffer, [(c, i.numpy()) for c, i in terms]))

    def exclusive(self, value: Value | None) -> bool:
        """Whether ``value`` is a trainable parameter that occurs once in the whole model."""
        if value is None or value.source is None or value.source.offset:
            return False
        return value.source.name in self.trainable and self.uses[value.source.name] == 1

    def _table(self, source: Source) -> Tensor:
        name = source.name
        if name not in self.shifts.tables:
            shape = tuple(self.parameters[name].shape)
            table = self.shifts.fresh(name, *shape)
            self.shifts.tables[name] = table
            self.shifts.legs.append(ParameterShift(name, [(1.0, table.numpy())]))
            if name in self._multiplied or name in self._absorbed or name not in self.trainable:
                self.shifts.pin_parameter(name)
                self._give_up(name)
        table = self.shifts.tables[name]
        read = table if source.entries is None else table.reshape(-1)[source.entries]
        self.shifts.seen.setdefault(name, []).append(distinct(read.numpy()))
        return read

    # ---- the run ---------------------------------------------------------------------------------------------------
    def run(self, capture: Capture, rules: Callable[[str], Any], fused: Fusions) -> None:
        """Interpret one graph, in which some parts are one operation."""
        env: dict[fx.Node, Any] = {}
        self.environments.append(env)
        self.fused |= fused.skipped | set(fused.by_end)
        for fusion in fused.by_end.values():
            inner = {*fusion.region.nodes} - {fusion.region.end}
            if fusion.name == "gaugefix.layer_norm" and inner <= fused.skipped:
                self.centring |= dict.fromkeys(inner, fusion.region.root)
        for node in capture.nodes():
            if node in fused.skipped:
                continue
            if node in fused.by_end:
                env[node] = self._fused(fused.by_end[node], env, rules)
            elif node.op == "placeholder":
                env[node] = self._placeholder(node, capture)
            elif node.op == "get_attr":
                tensor = capture.constants.get(str(node.target))
                env[node] = _constant(tensor) if tensor is not None else None
            elif node.op == "output":
                self.freeze(_lookup(node.args, env), "reaches the output")
            else:
                self._call(node, env, rules)

    def _placeholder(self, node: fx.Node, capture: Capture) -> Any:
        if node.name in capture.parameters:
            name = capture.parameters[node.name]
            shape = tuple(self.parameters[name].shape)
            if name not in self.legs:
                self.legs[name] = self._parameter_legs(node, shape)
                if name not in self.trainable:
                    for leg in self.legs[name]:
                        self.labels.restrict(leg, NOTHING, "requires_grad=False")
            return Value(shape, self.legs[name], source=Source(name))
        if node.name in capture.buffers:
            name, tensor = capture.buffers[node.name]
            # Floating-point buffers may change during training: their values are not relied upon.
            return replace(Value(tuple(tensor.shape)) if tensor.is_floating_point() else _constant(tensor), buffer=name)
        if node.name in capture.constants:
            return _constant(capture.constants[node.name])
        example = node.meta.get("val")
        return Value(tuple(example.shape)) if isinstance(example, Tensor) else example

    def _parameter_legs(self, node: fx.Node, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
        """One leg an axis; kernel axes of convolutions carry none, grouped ones have an input leg for each group."""
        groups, _, kernel = convolution_layout(node)
        legs = []
        for axis, size in enumerate(shape):
            if size < 2 and not (kernel and groups > 1 and axis < 2):
                continue
            if kernel and axis >= 2:
                continue
            if kernel and groups > 1 and axis == 1:
                rows = self.labels.fresh(groups, 1, size).expand(groups, shape[0] // groups, size)
                legs.append(rows.reshape(shape[0], size, *[1] * (len(shape) - 2)))
            else:
                layout = [1] * len(shape)
                layout[axis] = size
                legs.append(self.labels.fresh(size).reshape(layout))
        for leg in legs:  # channels of one parameter axis have one producer
            self.labels.fibre(leg, [k for k, size in enumerate(leg.shape) if size > 1] or [0])
        return tuple(legs)

    def _call(self, node: fx.Node, env: dict[fx.Node, Any], rules: Callable[[str], Any]) -> None:
        args, kwargs = _lookup(node.args, env), _lookup(node.kwargs, env)
        if node.target is operator.getitem:
            env[node] = args[0][args[1]] if isinstance(args[0], (list, tuple)) else args[0]
            return
        call = bind(node, args, kwargs)
        inputs = values_in(args) + values_in(kwargs)
        constant = all(v.known is not None for v in inputs) and (bool(inputs) or call.name in _FACTORIES)
        if constant and not _is_random(node) and not is_mutable(node):
            env[node] = _evaluate(node, env)
            if call.name in _COUNTING and env[node].known.numel() == 1:
                env[node] = Value(call.shape)  # one position only: a longer example would have others
            return
        env[node] = result = self._by_rule(call, rules(call.name), inputs)
        self._write_back(node, env, result)

    def _fused(self, fusion: Fusion, env: dict[fx.Node, Any], rules: Callable[[str], Any]) -> Any:
        region = fusion.region
        x = env[region.root]
        shape = tuple(region.end.meta["val"].shape)
        return self._by_rule(
            Call(region.end, fusion.name, fusion.arguments, [x], (shape,)), rules(fusion.name), values_in(x)
        )

    def _by_rule(self, call: Call, rule: Any, inputs: list[Value]) -> Any:
        if all(v.inert for v in inputs):
            sums = call.name in _SUMMING or any(v.stochastic for v in inputs)
            if not sums or rule is None:
                return _inert(call)
        if rule is None:
            self.unknown[call.name] += 1
            self.freeze(inputs, f"reaches {call.name}, for which there is no rule")
            return _inert(call)
        self._handled.clear()
        self._carried.clear()
        self._kept.clear()
        result = rule(self, call)
        for v in inputs:
            if id(v) not in self._handled:
                self.pin(replace(v, pending=[]))
            if id(v) not in self._carried:
                self._drop(v.pending)
            if v.heads is not None and id(v) not in self._kept:
                v.heads.reason = call.name
        return result

    def _write_back(self, node: fx.Node, env: dict[fx.Node, Any], result: Any) -> None:
        """After an operation in place, its input has the value of its result.

        Whoever shares memory with the input changes too. If one of them is read afterwards, all are given up.
        """
        if not is_mutable(node) or not isinstance(node.args[0], fx.Node):
            return
        target = node.args[0]
        if not isinstance(result, Value) or env.get(target) is None:
            return
        env[target] = result
        place = {other: k for k, other in enumerate(node.graph.nodes)}
        family = {member for member in aliases(node) if member in env}  # those that exist by now
        if not any(place[user] > place[node] for member in family - {node, target} for user in member.users):
            return
        self.freeze([env[member] for member in family], f"{bind(node, node.args, node.kwargs).name} in place on a view")
        self.aliased |= family
        for member in family:
            if isinstance(env[member], Value):
                env[member] = Value(env[member].shape)
            elif isinstance(env[member], (list, tuple)):
                env[member] = [Value(v.shape) if isinstance(v, Value) else v for v in env[member]]


_FACTORIES = frozenset(
    [
        "aten.arange",
        "aten.full",
        "aten.zeros",
        "aten.ones",
        "aten.eye",
        "aten.linspace",
        "aten.scalar_tensor",
        "aten.tril_indices",
    ]
)
"""Operations that make a constant from numbers alone."""

_SUMMING = frozenset(["aten.softmax", "aten._softmax"])
"""Operations whose result has rows that sum to one, whatever they read."""

_COUNTING = frozenset(["aten.arange", "aten.linspace"])


def _key(channel_map: ChannelMap | None) -> tuple[object, ...]:
    if channel_map is None:
        return ()
    entries = None if channel_map.entries is None else channel_map.entries.tobytes()
    return (channel_map.weight, entries, channel_map.transposed, channel_map.groups)


def _lookup(item: Any, env: Mapping[fx.Node, Any]) -> Any:
    return fx.node.map_arg(item, lambda node: env.get(node))


def _constant(tensor: Tensor) -> Value:
    """A tensor with values on the CPU; one of the meta device has none, and may be anything."""
    return Value(tuple(tensor.shape), known=None if tensor.is_meta else tensor.detach().cpu())


def _evaluate(node: fx.Node, env: Mapping[fx.Node, Any]) -> Any:
    """Run an operation on constants on the CPU, wherever the model is."""
    result = run_node(node, {source: known(env.get(source)) for source in node.all_input_nodes})

    def wrap(item: Any) -> Any:
        if isinstance(item, Tensor):
            return Value(tuple(item.shape), known=item)
        return [wrap(i) for i in item] if isinstance(item, (list, tuple)) else item

    return wrap(result)


def _inert(call: Call) -> Any:
    meta = call.node.meta.get("val")
    if isinstance(meta, (list, tuple)):
        return [Value(shape) for shape in call.shapes]
    return Value(call.shape) if isinstance(meta, Tensor) else meta


def _is_random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
