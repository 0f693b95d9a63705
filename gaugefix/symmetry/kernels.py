"""Kernels of layer norms: what a norm does not see in its writers, and what its readers cannot see.

A layer norm subtracts the mean, so every map that writes into it alone may add the same row to all outputs
(*writer kernel*): W ← W + 1⊗s. Its output y = γ⊙x̂ + β obeys Σ_i y_i/γ_i = Σ_i β_i/γ_i for every input, so a map
that reads it may add any multiple of 1/γ if its bias takes the constant back (*reader kernel*):
W ← W + u⊗(1/γ), b ← b − u·Σβ/γ. Both are vector groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from gaugefix.groups import Translations
from gaugefix.symmetry.base import Part, Symmetry


@dataclass(frozen=True, eq=False)
class WriterKernel(Symmetry):
    """W ← W + 1⊗s along ``axis``.

    Args:
        weight: parameter that writes into the norm.
        axis: its output axis.
        acting: translations by s, one entry per remaining entry of the weight.
        overlap: dimensions that a shift already counts (adding the same s to every row of an embedding).
    """

    weight: str = field(kw_only=True)
    axis: int = field(kw_only=True)
    acting: Translations = field(kw_only=True)
    overlap: int = field(default=0, kw_only=True)

    @property
    def group(self) -> Translations:
        return self.acting

    @property
    def dimension(self) -> int:
        return self.acting.dimension - self.overlap

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(self.weight, f"constant along axis {self.axis}"),)

    def act(self, tensors: Mapping[str, Tensor], value: Tensor) -> dict[str, Tensor]:
        weight = tensors[self.weight]
        shape = list(weight.shape)
        shape[self.axis] = 1
        return {self.weight: weight + value.to(weight).reshape(shape)}


@dataclass(frozen=True, eq=False)
class ReaderKernel(Symmetry):
    """W ← W + u⊗(1/γ), b ← b − u·Σβ/γ.

    Args:
        weight: parameter that reads the norm; its input axis is ``axis`` (all other axes but ``out_axis`` have size 1).
        bias: its bias, or ``None`` (then β must be absent).
        gain, shift: γ and β of the norm, or ``None``.
        overlap: dimensions that a writer kernel of the same weight already counts (1⊗(1/γ)).
    """

    weight: str = field(kw_only=True)
    axis: int = field(kw_only=True)
    out_axis: int = field(kw_only=True)
    bias: str | None = field(kw_only=True)
    gain: str | None = field(kw_only=True)
    shift: str | None = field(kw_only=True)
    acting: Translations = field(kw_only=True)
    overlap: int = field(default=0, kw_only=True)

    @property
    def group(self) -> Translations:
        return self.acting

    @property
    def dimension(self) -> int:
        return self.acting.dimension - self.overlap

    @property
    def parts(self) -> tuple[Part, ...]:
        parts = [Part(self.weight, f"multiples of 1/{self.gain or 1} along axis {self.axis}")]
        return (*parts, Part(self.bias, "takes the constant back")) if self.bias else tuple(parts)

    @cached_property
    def reads(self) -> tuple[str, ...]:
        return tuple(name for name in (self.weight, self.bias, self.gain, self.shift) if name is not None)

    def act(self, tensors: Mapping[str, Tensor], value: Tensor) -> dict[str, Tensor]:
        weight = tensors[self.weight]
        value = value.to(weight.device)
        size = weight.shape[self.axis]
        relation = value.new_ones(size) if self.gain is None else tensors[self.gain].reshape(-1).to(value).reciprocal()
        along, across = [1] * weight.ndim, [1] * weight.ndim
        along[self.axis], across[self.out_axis] = -1, -1
        moved = {self.weight: (weight + value.reshape(across) * relation.reshape(along)).to(weight.dtype)}
        if self.bias is not None and self.shift is not None:
            bias = tensors[self.bias]
            constant = (relation * tensors[self.shift].reshape(-1).to(relation)).sum()
            moved[self.bias] = (bias - value * constant).to(bias.dtype)
        return moved
