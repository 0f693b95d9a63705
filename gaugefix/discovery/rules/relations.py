"""What a layer norm leaves behind, Σ y_i/γ_i = Σ β_i/γ_i, where its gain and its shift are written out."""

from __future__ import annotations

from dataclasses import replace

from gaugefix.discovery.value import Relation, Value


def after_gain(x: Value, y: Value, out: Value) -> Value:
    """Σ x̂ = 0 becomes Σ y/γ = 0 in the product y = x̂ γ."""
    for value, gain in ((x, y), (y, x)):
        if value.normalized and value.relation == Relation(len(out.shape) - 1, None, None):
            name = _vector(gain, out)
            return out if name is None else replace(out, relation=Relation(len(out.shape) - 1, name, None))
    return out


def after_shift(x: Value, y: Value, out: Value) -> Value:
    """Σ y/γ = 0 becomes Σ (y + β)/γ = Σ β/γ in the sum y + β."""
    for value, shift in ((x, y), (y, x)):
        relation = value.relation
        if relation is not None and relation.axis == len(out.shape) - 1 and relation.shift is None:
            name = _vector(shift, out)
            return out if name is None else replace(out, relation=replace(relation, shift=name))
    return out


def _vector(value: Value, out: Value) -> str | None:
    """Name of a parameter that has one number for every channel of the last axis."""
    source = value.source
    if source is None or source.entries is not None or source.offset or tuple(value.shape) != tuple(out.shape[-1:]):
        return None
    return source.name
