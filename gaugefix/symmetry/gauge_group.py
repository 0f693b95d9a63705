"""The gauge group of a model: all symmetries found, and what was left frozen and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gaugefix.errors import SymmetryError, did_you_mean
from gaugefix.symmetry.base import Symmetry
from gaugefix.symmetry.element import Element
from gaugefix.symmetry.exactness import Exactness
from gaugefix.symmetry.leg import Leg
from gaugefix.symmetry.linear import LinearSymmetry
from gaugefix.symmetry.rotation import ResidualRotation
from gaugefix.symmetry.shift import ShiftSymmetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


@dataclass(frozen=True)
class Frozen:
    """A parameter, or a part of one, that no symmetry moves, and the reason."""

    parameter: str
    reason: str


@dataclass(frozen=True, eq=False)
class GaugeGroup:
    """A product of symmetries, as data about names: it fits copies, averaged models and reloaded checkpoints.

    Args:
        symmetries: in the order in which a random element applies them (linear ones first).
        shapes: shape of every parameter and buffer that a symmetry reads.
        frozen: parameters without any symmetry, with the reason.
        unknown_ops: operations without a rule that a parameter's channels reached.
        dropout: whether the model has dropout that is active in train mode.
        flows: states of differential equations whose channels do not mix freely, with the operations that keep them
            apart, in words.
    """

    symmetries: tuple[Symmetry, ...]
    shapes: Mapping[str, tuple[int, ...]]
    frozen: tuple[Frozen, ...] = ()
    unknown_ops: tuple[str, ...] = ()
    dropout: bool = False
    flows: tuple[str, ...] = ()
    _names: dict[str, Symmetry] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for symmetry in self.symmetries:
            if symmetry.name in self._names:
                raise SymmetryError(
                    f"Expected different names for symmetries, got '{symmetry.name}' twice. Rename one of them."
                )
            self._names[symmetry.name] = symmetry
            for name in symmetry.reads:
                if name not in self.shapes:
                    raise SymmetryError(
                        f"Expected the shape of '{name}' for symmetry '{symmetry.name}', got none. Add it to shapes."
                    )
            if isinstance(symmetry, (LinearSymmetry, ResidualRotation)):
                for leg in (item if isinstance(item, Leg) else item[0] for item in symmetry.legs):
                    _check_broadcast(symmetry.name, leg.parameter, leg.index.shape, self.shapes[leg.parameter])

    @property
    def applied(self) -> tuple[Symmetry, ...]:
        """The symmetries that ``random``, ``act_`` and ``project_`` use: exact, or exact while dropout is off."""
        return tuple(s for s in self.symmetries if s.exactness.applied)

    @property
    def dimension(self) -> int:
        """Continuous redundant dimensions, exact with dropout off."""
        return sum(s.dimension for s in self.applied)

    def __getitem__(self, name: str) -> Symmetry:
        if name not in self._names:
            raise SymmetryError(f"Expected the name of a symmetry, got '{name}'. {did_you_mean(name, self._names)}")
        return self._names[name]

    def __len__(self) -> int:
        return len(self.symmetries)

    def exact(self) -> GaugeGroup:
        """Return the subgroup that also holds while dropout is active."""
        kept: list[Symmetry] = []
        for s in self.symmetries:
            if s.exactness is Exactness.DROPOUT_FREE:
                kept += s.exact_part if isinstance(s, (LinearSymmetry, ShiftSymmetry)) else ()
            else:
                kept.append(s)
        return replace(self, symmetries=tuple(kept))

    def select(self, keep: Callable[[Symmetry], bool]) -> GaugeGroup:
        """Return the subgroup of the symmetries for which ``keep`` is true."""
        return replace(self, symmetries=tuple(s for s in self.symmetries if keep(s)))

    def with_symmetries(self, extra: Iterable[Symmetry], shapes: Mapping[str, tuple[int, ...]]) -> GaugeGroup:
        """Return the group with more symmetries (and the shapes of what they read)."""
        return replace(self, symmetries=(*self.symmetries, *extra), shapes={**self.shapes, **shapes})

    def random(self, scale: float = 0.3, seed: int = 0, discrete: bool = False, conditional: bool = False) -> Element:
        """Draw an element of the applied symmetries.

        Args:
            scale: standard deviation of the algebra coordinates (of log λ for a scaling).
            seed: of the generator; the same seed gives the same element.
            discrete: whether to draw sign flips and permutations too.
            conditional: whether to draw symmetries that hold only where some parameters are not zero
                (:attr:`Symmetry.conditional`) too. A new layer norm, whose β is zero, is no such point.

        Returns:
            Float64 (int64 for permutations) elements on the CPU, one step per symmetry.
        """
        generator = torch.Generator().manual_seed(seed)
        chosen = [s for s in self.applied if discrete or s.group.dimension > 0]
        chosen = [s for s in chosen if conditional or not s.conditional]
        steps = [(s.name, s.group.random(scale, generator, discrete=discrete)) for s in chosen]
        return Element(tuple(steps))

    def inverse(self, element: Element) -> Element:
        """Return the element that undoes ``element``."""
        return Element(tuple((name, self[name].group.inverse(value)) for name, value in reversed(element.steps)))

    def check(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the parameters and buffers of ``model`` that the group reads, by name.

        Raises:
            SymmetryError: if one is missing or has another shape: the group is that of another model.
        """
        tensors = {name: tensor for name, tensor in named_tensors(model).items() if name in self.shapes}
        for name, shape in self.shapes.items():
            if name not in tensors:
                raise SymmetryError(
                    f"Expected a parameter '{name}' in the model, got none. This gauge group belongs to another model: "
                    "discover it again."
                )
            if tuple(tensors[name].shape) != tuple(shape):
                raise SymmetryError(
                    f"Expected shape {tuple(shape)} for '{name}', got {tuple(tensors[name].shape)}. This gauge group "
                    "belongs to another model: discover it again."
                )
        return tensors

    def __str__(self) -> str:
        from gaugefix.symmetry.table import table

        return table(self)


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name, shared ones under every name.

    The names are those inside the wrappers of ``torch.compile``, DistributedDataParallel and Lightning Fabric.
    """
    for wrapper in ("_forward_module", "module"):
        inner = getattr(model, wrapper, None)
        if type(model).__name__ in ("_FabricModule", "DistributedDataParallel") and inner is not None:
            return named_tensors(inner)
    found: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    found.update(model.named_buffers(remove_duplicate=False))
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in found.items()}


def _check_broadcast(symmetry: str, parameter: str, index: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if len(index) != len(shape) or any(i not in (1, s) for i, s in zip(index, shape, strict=True)):
        raise SymmetryError(
            f"Expected an index that broadcasts to {shape} for the leg of '{symmetry}' on '{parameter}', got {index}. "
            "Give one size-1 axis for every axis along which nothing varies."
        )
