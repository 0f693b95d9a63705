"""Least norm over a translation group: an orthogonal projection.

A shift or kernel acts affinely in its coordinates v at fixed parameters, θ(v) = θ + Jv, so that ½‖θ(v)‖² is a
quadratic form; its minimum solves JᵀJ v = −Jᵀθ (conjugate gradients; J is applied by differentiating the action).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gaugefix.symmetry import Symmetry


def least_norm(
    symmetry: Symmetry, tensors: Mapping[str, Tensor], buffers: frozenset[str] = frozenset()
) -> tuple[Tensor, float]:
    """Return the coordinates v of least norm, and the relative size of the step, ‖Jv‖/‖θ‖.

    Args:
        symmetry: one whose action is affine in its coordinates.
        tensors: float64 parameters and buffers by name.
        buffers: names that do not count in the norm.
    """
    n = symmetry.group.coordinates
    read = {name: tensors[name] for name in symmetry.reads}
    counted = [name for name in symmetry.parameters if name not in buffers and not _statistic(name)]
    device = next(iter(read.values())).device
    zero = torch.zeros(n, dtype=torch.float64, device=device)

    def moved(v: Tensor) -> tuple[Tensor, ...]:
        new = symmetry.act(read, v)
        return tuple(new[name] for name in counted)

    base, pull = torch.func.vjp(moved, zero)[:2]
    size = torch.stack([b.square().sum() for b in base]).sum().sqrt()

    def push(v: Tensor) -> tuple[Tensor, ...]:
        return tuple(a - b for a, b in zip(moved(v), base, strict=True))

    def normal(v: Tensor) -> Tensor:
        out: Tensor = pull(push(v))[0]
        return out

    v = zero.clone()
    remainder = -pull(base)[0]
    direction = remainder.clone()
    energy = remainder @ remainder
    goal = max(1e-26 * float(energy), 1e-28 * float(size) ** 2)
    for _ in range(4 * n + 50):
        if float(energy) <= goal or float(energy) == 0.0:
            break
        image = normal(direction)
        curvature = direction @ image
        if float(curvature) <= 0.0:
            break
        length = energy / curvature
        v = v + length * direction
        remainder = remainder - length * image
        new = remainder @ remainder
        direction = remainder + new / energy * direction
        energy = new
    step = torch.stack([p.square().sum() for p in push(v)]).sum().sqrt()
    return v, float(step / size) if float(size) > 0 else 0.0


def _statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var"))
