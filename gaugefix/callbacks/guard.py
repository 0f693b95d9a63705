"""guarded_act_: move along the orbit, look at the outputs, and take it back bit by bit if they changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gaugefix.callbacks.gauge_source import Analysed
from gaugefix.callbacks.second_opinion import change_in_double, change_in_double_of_shards
from gaugefix.sharding import apart, is_sharded, rows_here
from gaugefix.symmetry import Element, GaugeGroup
from gaugefix.testing import Probe, relative_change, tolerance_for
from gaugefix.transport import Policy, act_, attached

_NARROW = (torch.float16,)
"""Types whose range, 6e-8 to 65504, a motion may leave."""


class Snapshot:
    """A copy of everything that an element moves: parameters, buffers, gradients, optimizer states, averaged copies.

    Args:
        model: whose parameters will move.
        gauge: its group.
        element: what will act.
        optimizers: whose states will move.
        averaged: copies that will move.
        policy: for states without a law; under ``"reset"`` their entries are kept too.
    """

    def __init__(
        self,
        model: nn.Module,
        gauge: GaugeGroup,
        element: Element,
        optimizers: Sequence[Optimizer],
        averaged: Sequence[nn.Module],
        policy: Policy,
    ) -> None:
        names = {name for symmetry, _ in element.steps for name in gauge[symmetry].reads}
        tensors = gauge.check(model)
        attachments = attached({name: tensors[name] for name in names}, optimizers, policy)
        dense = [item.tensor for item in attachments.along if item.sparse_of is None]
        everything = [tensors[name] for name in names] + dense
        for copy in averaged:
            copied = gauge.check(copy)
            everything += [copied[name] for name in names]
        self._values = [(tensor, rows_here(tensor.detach()).clone()) for tensor in everything]
        # Sparse gradients are replaced and cleared states dropped: the old objects are enough.
        sparse = [item.sparse_of for item in attachments.along if item.sparse_of is not None]
        self._gradients = [(parameter, parameter.grad) for parameter in sparse]
        self._states: list[tuple[Optimizer, Tensor, Any]] = [(o, p, o.state[p]) for o, p in attachments.clear]

    @property
    def before(self) -> dict[int, Tensor]:
        """The values of the tensors that move (of shards: the rows here), by the ``id`` of the tensor."""
        return {id(tensor): value for tensor, value in self._values}

    @torch.no_grad()
    def out_of_range(self) -> bool:
        """Whether what moved does not fit into its type, which outputs need not show: states, copies, other tokens.

        Of float32 and bfloat16, whose range is far, nothing is read.
        """
        narrow = [(rows_here(tensor), value) for tensor, value in self._values if tensor.dtype in _NARROW]
        return any(_has_left_range(tensor.detach(), value) for tensor, value in narrow)

    @torch.no_grad()
    def restore(self) -> None:
        """Write everything back."""
        for tensor, value in self._values:
            rows_here(tensor).copy_(value)
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        for optimizer, parameter, state in self._states:
            optimizer.state[parameter] = state


def guarded_act_(
    analysed: Analysed,
    element: Element,
    optimizers: Sequence[Optimizer],
    averaged: Sequence[nn.Module],
    policy: Policy,
    agree: Callable[[bool], bool],
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
    root: nn.Module | None = None,
) -> tuple[bool, float]:
    """Act with ``element``, unless that changes the outputs on the example inputs by more than rounding.

    Outputs are computed in the precision of the model; if they change by more than that explains, in float64 too, for
    a model in a bad gauge has errors of its own (:func:`change_in_double`).

    Args:
        analysed: the module with its group and example inputs.
        element: what acts.
        optimizers: whose states move along.
        averaged: copies that move along.
        policy: for states without a law.
        agree: makes one decision of those of all processes, which see different inputs.
        around: what the training step runs in.
        root: the whole model, if the module is a part of it.

    Returns:
        Whether the element acted, and the relative change of the outputs; infinite if something left the range of its
        type.
    """
    model, gauge, inputs = analysed.module, analysed.gauge, analysed.inputs
    assert inputs is not None
    probe = Probe(model, inputs.args, inputs.kwargs)
    whole = model if root is None else root
    snapshot = Snapshot(model, gauge, element, optimizers, averaged, policy)
    with apart(whole, model), around():
        before = probe()
    try:
        act_(model, gauge, element, optimizers, averaged=averaged, unknown_optimizer=policy)
        with apart(whole, model), around():
            after = probe()
        error, most = relative_change(before, after), tolerance_for(model)
        if is_sharded(model):
            if not agree(error <= most):  # for one, for all: they compute together
                # A MixedPrecisionPolicy rounds more than the parameters do: this does not.
                error = change_in_double_of_shards(model, inputs.args, inputs.kwargs or {}, snapshot.before)
        elif not error <= most:
            error = change_in_double(model, inputs.args, inputs.kwargs or {}, snapshot.before)
        if snapshot.out_of_range():
            error = math.inf
        kept = agree(error <= most)
    except BaseException:
        snapshot.restore()
        raise
    if not kept:
        snapshot.restore()
    return kept, error


def why_taken_back(step: int, error: float, model: nn.Module) -> str:
    """The message for a projection that :func:`guarded_act_` took back."""
    if error == math.inf and any(p.dtype in _NARROW for p in model.parameters()):
        return (
            f"Expected values within the range of float16, 6e-8 to 65504, for the projection at step {step}, got some "
            "beyond it. It was taken back. Train with precision='bf16-true' or '16-mixed', or give "
            "slice='minimal_norm', which needs the least range."
        )
    return (
        f"Expected unchanged outputs for the projection at step {step}, got a relative change of {error:.1e}. It was "
        "taken back. Check the group with gaugefix.verify(model, callback.gauge, args): a symmetry may be false for "
        "this model; or give dyadic=True, which does not round."
    )


def _has_left_range(new: Tensor, old: Tensor) -> bool:
    """Whether finite entries are not finite any more, or a row or column (of a vector: all of it) has become zero.

    Single entries that become zero are a matter of rounding.
    """
    if new.ndim == 0 or not new.numel():
        return False
    if bool((old.isfinite() & ~new.isfinite()).any()):
        return True
    lines = [tuple(k for k in range(new.ndim) if k != axis) for axis in (0, 1)] if new.ndim > 1 else [(0,)]
    return any(bool(((new == 0).all(line) & (old != 0).any(line)).any()) for line in lines)
