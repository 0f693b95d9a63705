"""Trial: a re-randomised float64 copy of a model, with inputs and reference outputs."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gaugefix.errors import VerificationError
from gaugefix.symmetry import named_tensors
from gaugefix.testing.double_precision import double_precision
from gaugefix.testing.dropout_off import DropoutOff
from gaugefix.testing.fresh_inputs import as_double, fresh_inputs, fresh_keywords
from gaugefix.testing.probe import relative_change, tensors_in
from gaugefix.testing.redundancy import randomise_
from gaugefix.testing.same_steps import SameSteps

if TYPE_CHECKING:
    from torch import nn

Batch = tuple[tuple[Any, ...], dict[str, Any]]


class Trial:
    """How much a change of parameters changes the function.

    The copy computes in float64 throughout and has generic parameters and statistics. Its outputs are compared in eval
    mode, in train mode, and in eval mode with the statistics that train mode left, in two batch sizes where the model
    takes them. Adaptive solvers choose their steps for the reference only (see :class:`SameSteps`).

    Args:
        model: left as it is.
        args: example inputs; fresh ones are drawn in their shapes.
        kwargs: example keyword inputs, likewise.
        seed: of parameters and inputs.

    Raises:
        VerificationError: if an output of the copy has no finite number to compare.
    """

    def __init__(self, model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], seed: int) -> None:
        self.model = copy.deepcopy(model).double()
        randomise_(self.model, seed)
        self.seed = seed
        self.state = {name: tensor.detach().clone() for name, tensor in named_tensors(self.model).items()}
        self._device = next((t.device.type for t in self.state.values()), "cpu")
        self.batches = [self._same_shape(args, kwargs), *self._other_shape(args, kwargs)]
        self._steps = {dropout: SameSteps() for dropout in (False, True)}
        self.reference = {dropout: self._outputs(dropout) for dropout in (False, True)}

    def change(self, moved: Mapping[str, Tensor], dropout: bool) -> float:
        """Return the largest relative change of any output when parameters take the values ``moved``.

        Args:
            moved: name → float64 value.
            dropout: whether dropout is active in train mode.
        """
        with torch.no_grad():
            tensors = named_tensors(self.model)
            for name, value in moved.items():
                tensors[name].copy_(value)
        return max(map(_difference, self.reference[dropout], self._outputs(dropout)), default=0.0)

    def _same_shape(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Batch:
        """Fresh inputs; the example itself where the model makes nothing of fresh ones."""
        fresh = _double(fresh_inputs(args, self.seed + 2), fresh_keywords(kwargs, self.seed + 2))
        if self._runs(fresh):
            return fresh
        example = _double(args, kwargs)
        outputs = self._run([example], (False,))
        if not all(_finite(t) for t in outputs):
            raise VerificationError(
                f"Expected finite outputs of {type(self.model).__name__} on the example inputs, got an output without "
                "a finite number. Give inputs on which random parameters give one, e.g. a mask that leaves every "
                "position something to attend to."
            )
        return example

    def _other_shape(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Batch]:
        """Fresh inputs in another batch size, if all inputs have the same and the model takes another."""
        sizes = {a.shape[0] for a in (*args, *kwargs.values()) if isinstance(a, Tensor) and a.ndim > 1}
        if len(sizes) != 1:
            return []
        size = sizes.pop() + 3
        other = _double(fresh_inputs(args, self.seed + 3, size), fresh_keywords(kwargs, self.seed + 3, size))
        return [other] if self._runs(other) else []

    def _runs(self, batch: Batch) -> bool:
        try:
            return all(_finite(t) for t in self._run([batch], (False,)))
        except (RuntimeError, ValueError, IndexError, AssertionError):
            return False

    def _outputs(self, dropout: bool) -> list[Tensor]:
        with nullcontext() if dropout else DropoutOff(), self._steps[dropout].kept():
            return self._run(self.batches, (False, True, False))

    def _run(self, batches: Sequence[Batch], modes: Sequence[bool]) -> list[Tensor]:
        """Run the modes on every batch, then put parameters and statistics back."""
        outputs: list[Tensor] = []
        with torch.random.fork_rng(), torch.no_grad(), double_precision(self._device):
            try:
                for (args, kwargs), train in product(batches, modes):
                    self.model.train(train)
                    torch.manual_seed(self.seed)
                    # Copies: a model may change its input in place.
                    given = {name: _copied(value) for name, value in kwargs.items()}
                    outputs += [t.detach().clone() for t in tensors_in(self.model(*map(_copied, args), **given))]
            finally:
                for name, tensor in named_tensors(self.model).items():
                    tensor.copy_(self.state[name])
        return outputs


def _double(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Batch:
    return tuple(map(as_double, args)), {name: as_double(value) for name, value in kwargs.items()}


def _copied(item: Any) -> Any:
    return item.clone() if isinstance(item, Tensor) else item


def _finite(output: Tensor) -> bool:
    """Whether there is something to compare."""
    return not output.numel() or bool(output.isfinite().any())


def _difference(reference: Tensor, moved: Tensor) -> float:
    """The relative change; 1 for whole numbers that differ."""
    if reference.is_floating_point() or reference.is_complex():
        return relative_change([reference], [moved])
    return float((reference != moved).any())
