"""The soundness test: act with random elements on a re-randomised float64 copy and compare outputs."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gaugefix.errors import VerificationError
from gaugefix.symmetry import Element, Exactness, GaugeGroup, Symmetry, named_tensors
from gaugefix.testing.redundancy import fresh_inputs, randomise_

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Check:
    """Result for one symmetry.

    Args:
        symmetry: its name (``"all"``: one random element of the whole group).
        error: largest relative change of any output, ‖y′ − y‖/‖y‖, over modes, shapes and draws.
        control: smallest relative change when one of the moved parameters is left behind (it must be large);
            ``nan`` if only one parameter moves.
    """

    symmetry: str
    error: float
    control: float


@dataclass(frozen=True)
class Verification:
    """Report of :func:`verify`."""

    checks: tuple[Check, ...]
    tolerance: float

    @property
    def error(self) -> float:
        """Largest relative error of all checks."""
        return max((check.error for check in self.checks), default=0.0)

    @property
    def ineffective(self) -> tuple[str, ...]:
        """Symmetries whose control did not change the output: a leg that moves something nobody reads."""
        return tuple(check.symmetry for check in self.checks if check.control < 1e3 * self.tolerance)

    def __str__(self) -> str:
        lines = [f"{c.symmetry}: error {c.error:.1e}, control {c.control:.1e}" for c in self.checks]
        return "\n".join([*lines, f"largest error {self.error:.1e}, tolerance {self.tolerance:.1e}"])


def verify(
    model: nn.Module,
    gauge: GaugeGroup,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    tolerance: float = 1e-12,
    scale: float = 0.3,
    seed: int = 0,
) -> Verification:
    """Prove numerically that ``gauge`` leaves the function of ``model`` unchanged.

    On a float64 copy with re-randomised parameters and statistics, random elements (signs and permutations included)
    act on every symmetry alone and on all together; outputs are compared on fresh inputs, in two batch sizes where the
    model takes them, in eval mode, in train mode, and in eval mode after the running statistics were updated.

    Args:
        model: left as it is.
        gauge: group to test; only applied classes are tested.
        args: example inputs; fresh ones are drawn in their shapes.
        kwargs: example keyword inputs, used as they are.
        tolerance: largest relative error that passes.
        scale: of the random elements.
        seed: of parameters, inputs and elements.

    Raises:
        VerificationError: if an output changes; the message names the symmetry and its parameters.
        SymmetryError: if the group does not fit the model.
    """
    gauge.check(model)
    trial = _Trial(model, args, dict(kwargs or {}), seed)
    element = gauge.random(scale, seed + 1, discrete=True)
    checks = [Check("all", trial.error(gauge, element), float("nan"))]
    by_name = dict(element.steps)
    for symmetry in gauge.applied:
        alone = Element(((symmetry.name, by_name[symmetry.name]),))
        error = trial.error(gauge, alone)
        if not error <= tolerance:
            raise VerificationError(
                f"Expected unchanged outputs for symmetry '{symmetry.name}' ({symmetry.group.symbol} on "
                f"{', '.join(symmetry.parameters)}), got a relative change of {error:.1e}. This symmetry is false for "
                "the model: leave it out with gauge.select and report the operation."
            )
        checks.append(Check(symmetry.name, error, trial.control(gauge, symmetry, alone)))
    if not checks[0].error <= tolerance * max(1, len(gauge.applied)) ** 0.5:
        raise VerificationError(
            f"Expected unchanged outputs for all symmetries together, got a relative change of {checks[0].error:.1e}. "
            "Each alone is sound: apply them one by one and report the combination."
        )
    return Verification(tuple(checks), tolerance)


class _Trial:
    """A re-randomised float64 copy with inputs and reference outputs."""

    def __init__(self, model: nn.Module, args: Sequence[Any], kwargs: dict[str, Any], seed: int) -> None:
        self.model = copy.deepcopy(model).double()
        randomise_(self.model, seed)
        self.seed = seed
        self.kwargs = {k: _double(v) for k, v in kwargs.items()}
        self.batches = [tuple(_double(a) for a in fresh_inputs(args, seed + 2))]
        self.state = {name: tensor.detach().clone() for name, tensor in named_tensors(self.model).items()}
        self._add_other_shape(args)
        self.reference: dict[bool, list[Tensor]] = {}
        for off in (True, False):
            self.reference[off] = self._outputs(off)
            self.restore()

    def _add_other_shape(self, args: Sequence[Any]) -> None:
        sizes = {a.shape[0] for a in args if isinstance(a, Tensor) and a.ndim > 1}
        if len(sizes) != 1 or self.kwargs:
            return
        other = tuple(_double(a) for a in fresh_inputs(args, self.seed + 3, sizes.pop() + 3))
        try:
            with torch.random.fork_rng():
                self._forward(other, train=False)
        except (RuntimeError, ValueError, IndexError, AssertionError):
            return  # the model takes one batch size only
        finally:
            self.restore()
        self.batches.append(other)

    def restore(self) -> None:
        with torch.no_grad():
            for name, tensor in named_tensors(self.model).items():
                tensor.copy_(self.state[name])

    def _forward(self, batch: Sequence[Any], train: bool) -> list[Tensor]:
        self.model.train(train)
        torch.manual_seed(self.seed)
        batch = tuple(a.clone() if isinstance(a, Tensor) else a for a in batch)  # a model may change its input in place
        return _tensors(self.model(*batch, **self.kwargs))

    def _outputs(self, dropout_off: bool) -> list[Tensor]:
        """Outputs in eval mode, in train mode, and in eval mode with the statistics that train mode left."""
        with torch.random.fork_rng(), torch.no_grad(), _no_dropout(dropout_off):
            out: list[Tensor] = []
            for batch in self.batches:
                for train in (False, True, False):
                    out += self._forward(batch, train)
        return out

    def _run(self, dropout_off: bool, change: Mapping[str, Tensor]) -> float:
        with torch.no_grad():
            tensors = named_tensors(self.model)
            for name, value in change.items():
                tensors[name].copy_(value)
        try:
            moved = self._outputs(dropout_off)
        finally:
            self.restore()
        pairs = zip(self.reference[dropout_off], moved, strict=True)
        return max((_relative(a, b) for a, b in pairs), default=0.0)

    def moved(self, gauge: GaugeGroup, element: Element) -> dict[str, Tensor]:
        tensors = {name: self.state[name] for name in gauge.shapes}
        changed: dict[str, Tensor] = {}
        for name, value in element.steps:
            update = gauge[name].act(tensors, value)
            tensors.update(update)
            changed.update(update)
        return changed

    def error(self, gauge: GaugeGroup, element: Element) -> float:
        """Relative error with dropout off, and with dropout on for the exact part."""
        worst = self._run(True, self.moved(gauge, element))
        exact = tuple((n, v) for n, v in element.steps if gauge[n].exactness is Exactness.EXACT)
        # A random mask belongs to a position: an exchange of units is exact in distribution only.
        exact = tuple((n, v) for n, v in exact if v.is_floating_point())
        return max(worst, self._run(False, self.moved(gauge, Element(exact)))) if exact and gauge.dropout else worst

    def control(self, gauge: GaugeGroup, symmetry: Symmetry, element: Element) -> float:
        changed = self.moved(gauge, element)
        changed = {n: v for n, v in changed.items() if not torch.equal(v, self.state[n])}
        if len(changed) < 2:
            return float("nan")
        return min(self._run(True, {n: v for n, v in changed.items() if n != left}) for left in changed)


@contextmanager
def _no_dropout(off: bool) -> Iterator[None]:
    if not off:
        yield
        return
    with _DropoutOff():
        yield


class _DropoutOff(TorchFunctionMode):
    """Make every dropout the identity, whether a module or a function asks for it."""

    def __torch_function__(
        self, func: Any, types: Iterable[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if "dropout" in getattr(func, "__name__", "") and func.__name__ != "scaled_dot_product_attention":
            return args[0] if args else kwargs["input"]
        if getattr(func, "__name__", "") == "scaled_dot_product_attention":
            kwargs["dropout_p"] = 0.0
            args = args[:4]
        if func is torch.nn.functional.multi_head_attention_forward:
            given = inspect.signature(func).bind(*args, **kwargs)
            given.arguments["dropout_p"] = 0.0
            args, kwargs = given.args, given.kwargs
        return func(*args, **kwargs)


def _double(item: Any) -> Any:
    return item.double() if isinstance(item, Tensor) and item.is_floating_point() else item


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output.detach().clone()]
    items = output.values() if isinstance(output, Mapping) else output
    return [t for o in items if isinstance(o, (Tensor, tuple, list, Mapping)) for t in _tensors(o)]


def _relative(a: Tensor, b: Tensor) -> float:
    if not a.is_floating_point():
        return float((a != b).any())
    size = a.norm()
    return float((a - b).norm() / size) if size > 0 else float((a - b).norm())
