"""guarded_act_: move along the orbit, look at the outputs, and take it back bit by bit if they changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        root: the whole model, if the module is a part of it.

    Returns:
        Whether the element acted, and the relative change of the outputs.
    """
    model, gauge, inputs = analysed.module, analysed.gauge, analysed.inputs
    assert inputs is not None
    probe = Probe(model, inputs.args, inputs.kwargs)
    whole = model if root is None else root
    snapshot = Snapshot(model, gauge, element, optimizers, averaged, policy)
    with apart(whole, model):
        before = probe()
    try:
        act_(model, gauge, element, optimizers, averaged=averaged, unknown_optimizer=policy)
        with apart(whole, model):
            after = probe()
        error, most = relative_change(before, after), tolerance_for(model)
        if is_sharded(model):
            if not agree(error <= most):  # for one, for all: they compute together
                # A MixedPrecisionPolicy rounds more than the parameters do: this does not.
                error = change_in_double_of_shards(model, inputs.args, inputs.kwargs or {}, snapshot.before)
        elif not error <= most:
            error = change_in_double(model, inputs.args, inputs.kwargs or {}, snapshot.before)
        kept = agree(error <= most)
    except BaseException:
        snapshot.restore()
        raise
    if not kept:
        snapshot.restore()
    return kept, error
