"""Probe: the outputs of a model on fixed inputs, leaving no trace in the model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gaugefix.testing.full_precision import full_precision
from gaugefix.testing.same_steps import SameSteps

if TYPE_CHECKING:
    from torch import nn


class Probe:
    """Outputs in eval mode, in full precision, on fixed inputs.

    The mode of every submodule, the buffers and the random generators are as before afterwards; every call sees the
    same random numbers, and adaptive solvers of torchdiffeq take the steps of the first call again (see
    :class:`SameSteps`). Compiled parts run uncompiled (another mode and batch size would compile them again).

    Args:
        model: any module.
        args: positional inputs.
        kwargs: keyword inputs.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Dropout())
        >>> probe = Probe(model, (torch.randn(3, 4),))
        >>> relative_change(probe(), probe())
        0.0
    """

    def __init__(self, model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> None:
        self.model = model
        self.args = tuple(args)
        self.kwargs = dict(kwargs or {})
        self._steps = SameSteps()

    @torch.no_grad()
    def __call__(self) -> list[Tensor]:
        """Return every tensor among the outputs, in order."""
        device = next((p.device.type for p in self.model.parameters()), "cpu")
        eager = torch.compiler.set_stance("force_eager")
        with untouched(self.model), full_precision(device), eager, self._steps.kept():
            self.model.eval()
            return [t.detach().clone() for t in tensors_in(self.model(*self.args, **self.kwargs))]


def relative_change(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Return the largest ‖after − before‖/‖before‖ over floating-point outputs (absolute where before = 0).

    Entries that are infinite or NaN must stay so; otherwise the change is ``inf``.
    """
    worst = 0.0
    for a, b in zip(before, after, strict=True):
        if not (a.is_floating_point() or a.is_complex()):
            continue  # an index such as an argmax may jump at a tie
        wide = torch.complex128 if a.is_complex() else torch.float64
        a, b = a.to(wide).reshape(-1), b.to(wide).reshape(-1)
        size, change = torch.stack([a.norm(), (b - a).norm()]).tolist()
        if not math.isfinite(size + change):
            finite = a.isfinite()
            if not torch.equal(finite, b.isfinite()):
                return math.inf
            a, b = a[finite], b[finite]
            size, change = torch.stack([a.norm(), (b - a).norm()]).tolist()
        worst = max(worst, change / size if size > 0.0 else change)
    return worst


def tensors_in(output: Any) -> list[Tensor]:
    """Every tensor in nested tuples, lists, mappings and dataclasses, in order."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        return [t for value in output.values() for t in tensors_in(value)]
    if isinstance(output, (tuple, list)):
        return [t for value in output for t in tensors_in(value)]
    if hasattr(output, "__dataclass_fields__"):
        return [t for name in output.__dataclass_fields__ for t in tensors_in(getattr(output, name))]
    return []


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put the modes of all submodules, the buffers and the random generators back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module._buffers, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    devices = {t.device for t in (*model.parameters(), *model.buffers()) if t.device.type == "cuda"}
    with torch.random.fork_rng(devices=[d.index or 0 for d in devices]):
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
            with torch.no_grad():
                for owner, name, buffer, value in buffers:
                    owner[name] = buffer  # a forward may have put another tensor in its place
                    buffer.copy_(value)
