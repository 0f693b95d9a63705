"""A gauge-fixing term: a scalar of the parameters whose minimum on an orbit is a gauge slice."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from gaugefix.errors import SettingError, did_you_mean
from gaugefix.symmetry import GaugeGroup

_TERMS: dict[str, type[GaugeTerm]] = {}
ON_TRAJECTORIES = ("jacobian_frobenius", "kinetic", "speed_variance")
"""Terms of ``gaugefix.ode.terms`` that need the states of a batch, and so belong into the loss."""


class GaugeTerm(ABC):
    """One term R(θ). Subclasses are registered by :func:`register_term`; the class attributes are its method card."""

    name: ClassVar[str]
    condition: ClassVar[str]
    """The gauge condition: what holds where the term is least along an orbit."""
    freedom: ClassVar[str]
    """The residual gauge freedom: what keeps the term as it is."""
    changes_function: ClassVar[str]
    """Whether its gradient also pushes on what the network computes: "no", "on the way" to the slice, or "yes"."""
    invariant: ClassVar[bool] = False
    """Whether it is the same everywhere on an orbit of its symmetries: a control, no gauge condition."""
    takes_shards: ClassVar[bool] = False
    """Whether ``measure`` and ``add_gradient_`` take :class:`gaugefix.sharding.Shards` for the tensors.

    Both are then called by all processes together, and the gradients are those of the rows here."""
    cost: ClassVar[str]
    """Of one gradient."""
    source: ClassVar[str]

    @abstractmethod
    def value(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return R, of shape (), differentiable by the parameters.

        Args:
            gauge: the group; only applied symmetries count.
            tensors: parameters (and buffers) by name, at least those that the group reads.
        """

    @torch.no_grad()
    def measure(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> float:
        """Return R as a number, where no derivative is needed."""
        return float(self.value(gauge, tensors))

    def add_gradient_(
        self, gauge: GaugeGroup, tensors: Mapping[str, Tensor], gradients: Mapping[str, Tensor], strength: float
    ) -> None:
        """Add strength · ∂R/∂θ to ``gradients``, in place.

        Args:
            gauge: as for :meth:`value`.
            tensors: as for :meth:`value`, or shards; left as they are.
            gradients: of the parameters that train, by name, dense and of their shapes and dtypes; of shards, those of
                the rows here.
            strength: the factor.
        """
        leaves = {name: tensors[name].detach().requires_grad_() for name in gradients}
        with torch.enable_grad():
            value = self.value(gauge, {**tensors, **leaves})
            found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
        for name, gradient in zip(leaves, found, strict=True):
            if gradient is not None:
                gradients[name].add_(gradient, alpha=strength)

    def check(self, gauge: GaugeGroup) -> None:
        """Raise :class:`SettingError` where the term has no meaning for this group, with what to use instead."""
        if not gauge.dimension:
            raise SettingError(
                f"Expected a gauge group with continuous symmetries for the term '{self.name}', got one without. "
                "print(gauge) names what blocks them."
            )


def total(parts: Sequence[Tensor]) -> Tensor:
    """Return the sum of scalars, in the widest of their dtypes; zero for none."""
    return functools.reduce(torch.add, parts) if parts else torch.zeros(())


def register_term(name: str) -> Callable[[type[GaugeTerm]], type[GaugeTerm]]:
    """Class decorator: make a term available by name."""

    def add(cls: type[GaugeTerm]) -> type[GaugeTerm]:
        if name in _TERMS:
            raise SettingError(f"Expected a new name for a term, got '{name}', which exists. Choose another name.")
        cls.name = name
        _TERMS[name] = cls
        return cls

    return add


def get_term(term: str | GaugeTerm) -> GaugeTerm:
    """Return a term by name (or as it is).

    Raises:
        SettingError: if the name is unknown; the message has the nearest name and the list.
    """
    if isinstance(term, GaugeTerm):
        return term
    if term in ON_TRAJECTORIES:
        raise SettingError(
            f"Expected a term on parameters, got '{term}', which needs the states of a batch. Add "
            f"gaugefix.regularizers.{term}(...) to the loss in training_step."
        )
    if term not in _TERMS:
        raise SettingError(f"Expected the name of a term, got '{term}'. {did_you_mean(str(term), _TERMS)}")
    return _TERMS[term]()


def require_shards(term: GaugeTerm) -> None:
    """Raise :class:`SettingError` for a term that shards are not enough for."""
    if not term.takes_shards:
        able = ", ".join(f"'{name}'" for name, known in _TERMS.items() if known.takes_shards)
        raise SettingError(
            f"Expected a term that is computed on shards (fully_shard, ModelParallelStrategy), got '{term.name}', "
            f"which needs whole parameters. Take one of {able}, or train with strategy='ddp' or on one device."
        )


def term_names() -> tuple[str, ...]:
    """Names of all terms."""
    return tuple(_TERMS)


def term_class(name: str) -> type[GaugeTerm]:
    """The class of a term, with its method card."""
    return type(get_term(name))
