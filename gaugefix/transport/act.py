"""act_: move a model along its orbit, in place, with everything that is attached to its parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gaugefix.errors import NonFiniteError
from gaugefix.groups import DiagonalGroup
from gaugefix.symmetry import (
    GRADIENT,
    PARAMETER,
    Element,
    GaugeGroup,
    LinearSymmetry,
    Symmetry,
    named_tensors,
)
from gaugefix.transport.laws import Attached, Policy, attached

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

    Args:
        model: whose parameters and buffers move.
        gauge: the group of this model.
        element: from ``gauge.random`` or a slice.
        optimizers: optimizers whose state belongs to the parameters.
        averaged: copies (EMA, SWA; an ``AveragedModel`` too) that move by the same element.
        unknown_optimizer: for states without a known law: ``"error"``, ``"reset"`` or ``"ignore"``.

    Raises:
        SymmetryError: if the group belongs to another model.
        TransportError: for an optimizer state without a law.
        NonFiniteError: if the element is not finite.
    """
    tensors = gauge.check(model)
    steps = [(gauge[name], value) for name, value in element.steps]
    for symmetry, value in steps:
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise NonFiniteError(
                f"Expected a finite element for '{symmetry.name}', got NaN or infinity. Nothing was changed; check the "
                "parameters " + ", ".join(symmetry.parameters) + "."
            )
    names = {name for symmetry, _ in steps for name in symmetry.parameters}
    moving = {name: tensors[name] for name in names}
    along, clear = attached(moving, optimizers, unknown_optimizer)
    copies = [_copy_tensors(copy, gauge) for copy in averaged]
    if all(_is_plain_scaling(symmetry) for symmetry, _ in steps):
        everything = [Attached(name, t, PARAMETER) for name, t in moving.items()] + along
        everything += [Attached(name, copy[name], PARAMETER) for copy in copies for name in names]
        _scale(everything, [(s, v) for s, v in steps if isinstance(s, LinearSymmetry)])
    else:
        updates = _moved(tensors, along, steps)
        for copy in copies:
            updates += _moved(copy, [], steps)
        for target, new in updates:
            target.copy_(new)
    for optimizer, parameter in clear:
        optimizer.state.pop(parameter, None)


def _is_plain_scaling(symmetry: Symmetry) -> bool:
    return (
        isinstance(symmetry, LinearSymmetry)
        and isinstance(symmetry.group, DiagonalGroup)
        and not any(leg.offset for leg in symmetry.legs)
    )


def _scale(everything: list[Attached], steps: list[tuple[LinearSymmetry, Tensor]]) -> None:
    """Multiply by all diagonal factors, one fused call per round of factors."""
    by_parameter: dict[str, list[tuple[LinearSymmetry, int, Tensor]]] = {}
    for symmetry, value in steps:
        for k, leg in enumerate(symmetry.legs):
            by_parameter.setdefault(leg.parameter, []).append((symmetry, k, value))
    cache: dict[tuple[int, int, int, torch.dtype, torch.device], Tensor] = {}
    rounds: list[tuple[list[Tensor], list[Tensor]]] = []
    for item in everything:
        for depth, (symmetry, k, value) in enumerate(by_parameter.get(item.parameter, ())):
            dtype = torch.promote_types(item.tensor.dtype, torch.float32)
            key = (id(symmetry), symmetry.legs[k].power * item.law, k, dtype, item.tensor.device)
            if key not in cache:
                cache[key] = _factor(symmetry, k, value, item.law, dtype, item.tensor.device)
            while len(rounds) <= depth:
                rounds.append(([], []))
            rounds[depth][0].append(item.tensor)
            rounds[depth][1].append(cache[key])
    for targets, factors in rounds:
        torch._foreach_mul_(targets, factors)


def _factor(
    symmetry: LinearSymmetry, k: int, value: Tensor, law: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    leg, group = symmetry.legs[k], symmetry.group
    assert isinstance(group, DiagonalGroup)
    return leg.spread(group.factor(value.to(device), leg.power * law).to(dtype), 1.0)


def _moved(
    tensors: Mapping[str, Tensor], along: list[Attached], steps: list[tuple[Symmetry, Tensor]]
) -> list[tuple[Tensor, Tensor]]:
    """Compute the new value of everything, step by step, without touching anything."""
    now = {name: t.detach() for name, t in tensors.items()}
    attached_now = [item.tensor.detach() for item in along]
    changed: set[str] = set()
    for symmetry, value in steps:
        after = {**now, **symmetry.act(now, value)}
        attached_now = _transport(symmetry, value, along, attached_now, after)
        now = after
        changed |= set(symmetry.parameters)
    pairs = [(tensors[name], now[name]) for name in changed]
    return pairs + [(item.tensor, new) for item, new in zip(along, attached_now, strict=True)]


def _transport(
    symmetry: Symmetry, value: Tensor, along: list[Attached], values: list[Tensor], after: Mapping[str, Tensor]
) -> list[Tensor]:
    """Move gradients and states through one step."""
    if isinstance(symmetry, LinearSymmetry):
        return [
            symmetry.transport({item.parameter: v}, value, item.law).get(item.parameter, v)
            for item, v in zip(along, values, strict=True)
        ]
    # An affine step θ' = F(θ) moves covectors by (DF)^{-T}: pull them back through the inverse at θ'. Second moments
    # would need the correlation between a bias and its weight, and stay.
    out = list(values)
    linear = [k for k, item in enumerate(along) if item.law == GRADIENT and item.parameter in symmetry.reads]
    for group in _by_kind(linear, along):
        names = [along[k].parameter for k in group]
        inverse = symmetry.group.inverse(value)
        wide = {n: after[n].to(torch.promote_types(after[n].dtype, torch.float32)) for n in symmetry.reads}

        def undo(*given: Tensor, names: list[str] = names, wide: dict[str, Tensor] = wide) -> tuple[Tensor, ...]:
            state = {**wide, **dict(zip(names, given, strict=True))}
            back = symmetry.act(state, inverse)
            return tuple(back.get(n, state[n]) for n in names)

        with torch.enable_grad():
            _, pull = torch.func.vjp(undo, *(wide[n] for n in names))
        pulled = pull(tuple(out[k].to(wide[n].dtype) for k, n in zip(group, names, strict=True)))
        for k, new in zip(group, pulled, strict=True):
            out[k] = new.to(out[k].dtype)
    return out


def _by_kind(chosen: list[int], along: list[Attached]) -> list[list[int]]:
    """Group states so that each group holds one per parameter: all gradients, all first moments, …"""
    groups: list[list[int]] = []
    seen: list[set[str]] = []
    for k in chosen:
        place = next((i for i, names in enumerate(seen) if along[k].parameter not in names), len(groups))
        if place == len(groups):
            groups.append([])
            seen.append(set())
        groups[place].append(k)
        seen[place].add(along[k].parameter)
    return groups


def _copy_tensors(copy: nn.Module, gauge: GaugeGroup) -> dict[str, Tensor]:
    """Tensors of an averaged copy by the names of the model (``AveragedModel`` wraps it as ``module``)."""
    found = named_tensors(copy)
    if any(name not in found for name in gauge.shapes) and hasattr(copy, "module"):
        return gauge.check(copy.module)  # type: ignore[arg-type]
    return gauge.check(copy)
