"""act_: move a model along its orbit, in place, with everything that is attached to its parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gaugefix.errors import NonFiniteError, SymmetryError
from gaugefix.groups import DiagonalGroup, Group, MatrixGroup
from gaugefix.sharding import Shards, reshard_, rows_here, shards_of
from gaugefix.symmetry import (
    GRADIENT,
    PARAMETER,
    RATIO,
    Element,
    GaugeGroup,
    LinearSymmetry,
    Symmetry,
    named_tensors,
)
from gaugefix.transport.attachments import Attached, attached
from gaugefix.transport.centered import centered
from gaugefix.transport.laws import Policy
from gaugefix.transport.scale import is_plain_scaling, scale_

if TYPE_CHECKING:
    from torch import nn


@torch.no_grad()
def act_(
    model: nn.Module,
    gauge: GaugeGroup,
    element: Element,
    optimizers: Iterable[torch.optim.Optimizer] = (),
    *,
    averaged: Sequence[nn.Module] = (),
    unknown_optimizer: Policy = "error",
) -> None:
    """Act with ``element`` on ``model`` in place: the function stays, the parameters move.

    Gradients, optimizer states and averaged copies move along (MATH §4). Everything that can fail is done before
    anything is changed.

    Under ``fully_shard`` all processes call this together, with the same element: scalings act on the rows that each
    has; for a symmetry that mixes rows its parameters are gathered one after another.

    Args:
        model: whose parameters and buffers move.
        gauge: the group of this model.
        element: from ``gauge.random`` or a slice.
        optimizers: optimizers whose state belongs to the parameters.
        averaged: copies (EMA, SWA; an ``AveragedModel`` too) that move by the same element.
        unknown_optimizer: for states without a known law: ``"error"``, ``"reset"`` or ``"ignore"``.

    Raises:
        SymmetryError: if the group or the element belongs to another model.
        TransportError: for an optimizer state without a law.
        NonFiniteError: if the element is not finite.
    """
    reshard_(model)
    move_(gauge.check(model), gauge, element, optimizers, averaged, unknown_optimizer)


def move_(
    tensors: Mapping[str, Tensor],
    gauge: GaugeGroup,
    element: Element,
    optimizers: Iterable[torch.optim.Optimizer],
    averaged: Sequence[nn.Module],
    unknown_optimizer: Policy,
) -> None:
    """As :func:`act_`, on what ``gauge.check`` has returned for the model; without gradients."""
    steps = [(gauge[name], value) for name, value in element.steps]
    _require_element(steps)
    # An affine step also turns the gradients of parameters that it only reads.
    names = list(dict.fromkeys(name for symmetry, _ in steps for name in symmetry.reads))
    _require_own_tensors({name: tensors[name] for name in names})
    attachments = attached({name: tensors[name] for name in names}, optimizers, unknown_optimizer)
    averages = centered(attachments.along)
    along = [*attachments.along, *(average.before for average in averages)]
    copies = [_copy_tensors(copy, gauge) for copy in averaged]
    scalings = list(takewhile(lambda step: is_plain_scaling(step[0]), steps))
    # Parameters that only scale are multiplied in place; those that a later step reads are computed aside first.
    aside = {name for symmetry, _ in steps[len(scalings) :] for name in symmetry.reads}
    updates: list[tuple[Tensor, Tensor]] = []
    if aside:
        for k, state in enumerate((tensors, *copies)):
            moving = [] if k else [item for item in along if item.parameter in aside]
            updates += _moved({name: state[name] for name in names if name in aside}, moving, steps)
    scaled = [name for name in names if name not in aside]
    everything = [Attached(name, state[name], PARAMETER) for state in (tensors, *copies) for name in scaled]
    everything += [item for item in along if item.parameter not in aside]
    scale_({id(item.tensor): item for item in everything}.values(), scalings)
    for target, new in updates:
        target.copy_(new)
    for average in averages:
        average.mend_()
    for item in along:
        if item.sparse_of is not None and item.sparse_of.grad is not None:
            item.sparse_of.grad = item.tensor.to_sparse(item.sparse_of.grad.sparse_dim())
    for optimizer, parameter in attachments.clear:
        optimizer.state.pop(parameter, None)


def _require_element(steps: Sequence[tuple[Symmetry, Tensor]]) -> None:
    """Raise if a value has another shape than its group, or is not finite; one look at all of them where possible."""
    for symmetry, value in steps:
        if value.shape != symmetry.group.shape:
            raise SymmetryError(
                f"Expected an element of shape {symmetry.group.shape} for '{symmetry.name}', got "
                f"{tuple(value.shape)}. It belongs to another group: draw or solve it again."
            )
    if not steps:
        return
    device = steps[0][1].device
    if math.isfinite(float(torch.cat([value.to(device).reshape(-1) for _, value in steps]).sum())):
        return
    for symmetry, value in steps:
        if not bool(torch.isfinite(value).all()):
            raise NonFiniteError(
                f"Expected a finite element for '{symmetry.name}', got NaN or infinity. Nothing was changed; check the "
                "parameters " + ", ".join(symmetry.parameters) + "."
            )


def _require_own_tensors(tensors: Mapping[str, Tensor]) -> None:
    """Raise if two names are one tensor, which would move twice."""
    first: dict[int, str] = {}
    for name, tensor in tensors.items():
        if first.setdefault(id(tensor), name) != name:
            raise SymmetryError(
                f"Expected a tensor of its own for '{name}', got that of '{first[id(tensor)]}'. They are tied: "
                "discover the group again, or declare the symmetry with the first name only."
            )


def _moved(
    tensors: dict[str, Tensor], along: list[Attached], steps: list[tuple[Symmetry, Tensor]]
) -> list[tuple[Tensor, Tensor]]:
    """Compute the new value of everything, step by step, without touching anything.

    Half precision is widened first, so that many steps round but once, where the result is copied back. Of sharded
    tensors only the rows here are kept.
    """
    now = _working(tensors)
    kinds: dict[object, list[Attached]] = {}
    for item in along:
        kinds.setdefault(item.kind, []).append(item)
    attached_to = {kind: {item.parameter: item.tensor for item in members} for kind, members in kinds.items()}
    values = {kind: _working(found) for kind, found in attached_to.items()}
    changed: dict[str, None] = {}
    for symmetry, value in steps:
        now.update(symmetry.act(now, value))
        after = {name: now[name] for name in symmetry.reads if name in now}
        for kind, members in kinds.items():
            _transport(symmetry, value, members[0].law, values[kind], after)
        changed.update(dict.fromkeys(name for name in symmetry.parameters if name in tensors))
    pairs = [(rows_here(tensors[name]), _rows(now, name)) for name in changed]
    for kind, found in attached_to.items():
        pairs += [(rows_here(tensor), _rows(values[kind], name)) for name, tensor in found.items()]
    return pairs


def _working(tensors: dict[str, Tensor]) -> MutableMapping[str, Tensor]:
    """What may be exchanged: the same values, in single precision at least."""
    found = shards_of(tensors)
    return found.mapped(_wide, found) if isinstance(found, Shards) else {name: _wide(t) for name, t in found.items()}


def _wide(tensor: Tensor) -> Tensor:
    wide = torch.promote_types(tensor.dtype, torch.float32) if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to(wide)


def _rows(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    return tensors.local[name] if isinstance(tensors, Shards) else tensors[name]


def _transport(
    symmetry: Symmetry, value: Tensor, law: int, values: MutableMapping[str, Tensor], after: Mapping[str, Tensor]
) -> None:
    """Move the gradients or states of one kind through one step."""
    if law == RATIO and isinstance(symmetry, LinearSymmetry):
        law, value = GRADIENT, _orthogonal_factor(symmetry.group, value)
    values.update(symmetry.transport(values, value, law, after))


def _orthogonal_factor(group: Group, value: Tensor) -> Tensor:
    """O of the polar decomposition g = O·P: signs of a scaling; a permutation or rotation is its own."""
    if isinstance(group, DiagonalGroup):
        return value.sign()
    if isinstance(group, MatrixGroup):
        u, _, vh = torch.linalg.svd(value)
        rotation: Tensor = u @ vh
        return rotation
    return value


def _copy_tensors(copy: nn.Module, gauge: GaugeGroup) -> dict[str, Tensor]:
    """Tensors of an averaged copy by the names of the model (``AveragedModel`` wraps it as ``module``)."""
    found = named_tensors(copy)
    if any(name not in found for name in gauge.shapes) and hasattr(copy, "module"):
        return gauge.check(copy.module)  # type: ignore[arg-type]
    return gauge.check(copy)
