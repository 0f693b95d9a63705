"""What rounding attention to 8 bits costs, in one gauge and in another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from gaugefix.errors import GaugeError

ROLES = {"q": "q", "k": "k", "v": "v", "o": "o", "q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o"}
"""Last part of a module's name → what it projects to."""
SCALES = ("tensor", "channel")
Batches = Sequence[tuple[Tensor, Tensor]]


class QuantizationError(GaugeError, ValueError):
    """The model has no projections that could be measured apart."""


def int8(x: Tensor, channel: int | None = None) -> Tensor:
    """Return ``x`` rounded to 255 levels: s·round(x/s) with s = max|x|/127.

    Args:
        x: any shape.
        channel: the axis along which every entry has an s of its own; None for one s in all.
    """
    axes = [k for k in range(x.ndim) if channel is not None and k != channel % x.ndim]
    step = (x.abs().amax(axes, keepdim=True) if channel is not None else x.abs().max()) / 127
    return torch.where(step > 0, (x / step).round() * step, x)


def relative_error(approximate: Tensor, exact: Tensor) -> float:
    """Return ‖approximate − exact‖/‖exact‖."""
    return float((approximate - exact).norm() / exact.norm())


def projections(model: nn.Module) -> dict[str, tuple[str, nn.Linear]]:
    """Return name → (role, layer) of the linear layers into and out of attention.

    Raises:
        QuantizationError: if there are none, or they are fused.
    """
    found = {
        name: (ROLES[last], module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and (last := name.rpartition(".")[2]) in ROLES
    }
    if {role for role, _ in found.values()} != {"q", "k", "v", "o"}:
        raise QuantizationError(
            f"Expected linear layers named q, k, v and o (or q_proj, …) in {type(model).__name__}, got "
            f"{sorted(found) or 'none'}. Give a model whose projections are layers of their own."
        )
    return found


@torch.no_grad()
def layer_errors(model: nn.Module, batches: Batches) -> list[dict[str, Any]]:
    """Return relative errors of every projection, one row each.

    A row has ``weight/<scale>``: of the weight; ``output/<scale>``: of W·x when W is rounded and x is exact; and
    ``activation/<scale>``: of the rounded output of q, k and v (before rotary positions), or the rounded input of o.
    <scale> is tensor, or channel: a row of W, or a feature of the activation.

    Args:
        model: maps tokens to logits.
        batches: tokens and targets.
    """
    layers = projections(model)
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}
    handles = [
        layer.register_forward_pre_hook(lambda _, args, kept=seen[name]: kept.append(args[0].flatten(0, -2)))
        for name, (_, layer) in layers.items()
    ]
    try:
        for tokens, _ in batches:
            model(tokens)
    finally:
        for handle in handles:
            handle.remove()
    rows: list[dict[str, Any]] = []
    for name, (role, layer) in layers.items():
        x, weight = torch.cat(seen[name]), layer.weight
        exact = linear(x, weight)
        activation = x if role == "o" else layer(x)
        row: dict[str, Any] = {"layer": name, "role": role}
        for scale, row_axis, feature_axis in zip(SCALES, (None, 0), (None, -1), strict=True):
            rounded = int8(weight, row_axis)
            row[f"weight/{scale}"] = relative_error(rounded, weight)
            row[f"output/{scale}"] = relative_error(linear(x, rounded), exact)
            row[f"activation/{scale}"] = relative_error(int8(activation, feature_axis), activation)
        rows.append(row)
    return rows


@torch.no_grad()
def losses(model: nn.Module, batches: Batches) -> dict[str, float]:
    """Return the mean cross entropy as it is, and with the weights of all projections rounded, per scale."""
    found = {"float": _loss(model, batches)}
    for scale, axis in zip(SCALES, (None, 0), strict=True):
        with _rounded(model, axis):
            found[scale] = _loss(model, batches)
    return found


def report(model: nn.Module, batches: Batches) -> dict[str, Any]:
    """Return ``{"layers": rows, "roles": means over the layers, "loss": losses}`` of a model in its present gauge."""
    rows = layer_errors(model, batches)
    keys = [key for key in rows[0] if "/" in key]
    roles: dict[str, Mapping[str, float]] = {}
    for role in ("q", "k", "v", "o"):
        mine = [row for row in rows if row["role"] == role]
        roles[role] = {key: sum(row[key] for row in mine) / len(mine) for key in keys}
    return {"layers": rows, "roles": roles, "loss": losses(model, batches)}


@contextmanager
def _rounded(model: nn.Module, axis: int | None) -> Iterator[None]:
    kept = [(layer.weight, layer.weight.detach().clone()) for _, layer in projections(model).values()]
    try:
        for weight, exact in kept:
            weight.copy_(int8(exact, axis))
        yield
    finally:
        for weight, exact in kept:
            weight.copy_(exact)


def _loss(model: nn.Module, batches: Batches) -> float:
    summed = sum(float(cross_entropy(model(x).flatten(0, -2), y.flatten(), reduction="sum")) for x, y in batches)
    return summed / sum(y.numel() for _, y in batches)
