"""Least norm over a translation group: an orthogonal projection.

A shift or kernel acts affinely in its coordinates v at fixed parameters, θ(v) = θ + Jv, so that ½‖θ(v)‖² is a
quadratic form; its minimum solves JᵀJ v = −Jᵀθ: in closed form for kernels and plain shifts, by conjugate gradients for
the other shifts, with J applied by differentiating the action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gaugefix.slices.plain_shift import plain_shift
from gaugefix.slices.shift_normal import ShiftNormal
from gaugefix.symmetry import ReaderKernel, ShiftSymmetry, Symmetry, WriterKernel

_DENSE = 2**23
"""Entries of J up to which it is computed as a matrix."""


def least_norm(
    symmetry: Symmetry,
    tensors: Mapping[str, Tensor],
    buffers: frozenset[str] = frozenset(),
    reference: Mapping[str, Tensor] | None = None,
    scale: float = 0.0,
    normal: ShiftNormal | None = None,
) -> tuple[Tensor, float]:
    """Return the coordinates v of least norm, and the relative size of the step, ‖Jv‖/‖θ‖.

    Args:
        symmetry: one whose action is affine in its coordinates.
        tensors: float64 parameters and buffers by name.
        buffers: names that do not count in the norm.
        reference: by name, what to come nearest to instead of zero.
        scale: of a shift, the smallest ‖θ‖ that its step is compared with: a bias that is zero but for rounding always
            moves by all of itself.
        normal: of a shift that is solved again and again, its factored normal equations.
    """
    if isinstance(symmetry, (ReaderKernel, WriterKernel)):
        return _kernel(symmetry, tensors, reference)
    read = {name: tensors[name] for name in symmetry.reads}
    counted = [name for name in symmetry.parameters if name not in buffers and not is_statistic(name)]
    if isinstance(symmetry, ShiftSymmetry):
        plain = plain_shift(symmetry, frozenset(counted), {name: read[name].shape for name in counted})
        if plain is not None:
            return plain.least_norm(read, reference, scale)
    device = next(iter(read.values())).device
    zero = torch.zeros(symmetry.group.coordinates, dtype=torch.float64, device=device)

    def moved(v: Tensor) -> tuple[Tensor, ...]:
        new = symmetry.act(read, v)
        return tuple(new[name] for name in counted)

    goals = None if reference is None else [reference[name] for name in counted]
    if normal is None or not normal.possible:
        return least_squares(moved, zero, goals, scale)
    if normal.small:
        v, step = normal.least_norm(read, reference)
        size = torch.stack([read[name].square().sum() for name in counted]).sum().sqrt()
        return v, _relative(float(step), float(size), scale)
    normal.prepare(read)
    return _conjugate_gradients(moved, zero, goals, scale, normal)


def least_squares(
    moved: Callable[[Tensor], tuple[Tensor, ...]],
    zero: Tensor,
    goals: Sequence[Tensor] | None = None,
    scale: float = 0.0,
) -> tuple[Tensor, float]:
    """Minimise Σ ‖θ(v) − goal‖² over v: by the normal equations if J is small, else by conjugate gradients from v = 0.

    Args:
        moved: θ(v), affine in v.
        zero: v = 0, float64.
        goals: one per tensor of θ; zero by default.
        scale: smallest ‖θ(0)‖ to compare with.

    Returns:
        v and ‖θ(v) − θ(0)‖/‖θ(0)‖. Directions that move nothing stay at 0.
    """
    if zero.shape[0] ** 2 <= _DENSE:
        base = moved(zero)
        if zero.shape[0] * sum(b.numel() for b in base) <= _DENSE:
            return _dense(moved, zero, base, goals, scale)
    return _conjugate_gradients(moved, zero, goals, scale)


def _conjugate_gradients(
    moved: Callable[[Tensor], tuple[Tensor, ...]],
    zero: Tensor,
    goals: Sequence[Tensor] | None,
    scale: float,
    normal: ShiftNormal | None = None,
) -> tuple[Tensor, float]:
    """The same step by step, with J applied by ``moved`` and its transpose; one step where ``normal`` is exact."""
    base, pull = torch.func.vjp(moved, zero)[:2]
    size = torch.stack([b.square().sum() for b in base]).sum().sqrt()
    apart = base if goals is None else tuple(b - g for b, g in zip(base, goals, strict=True))

    def push(v: Tensor) -> tuple[Tensor, ...]:
        return tuple(a - b for a, b in zip(moved(v), base, strict=True))

    v = zero.clone()
    remainder = -pull(apart)[0]
    better = remainder if normal is None else normal.solve(remainder)
    direction, energy = better.clone(), remainder @ better
    largest = max(float(size), float(torch.stack([a.square().sum() for a in apart]).sum().sqrt()))
    goal = max(1e-26 * float(remainder @ remainder), 1e-28 * largest**2)
    limit = 4 * zero.shape[0] + 50
    steps = 0
    while steps < limit and float(remainder @ remainder) > goal:
        image: Tensor = pull(push(direction))[0]
        curvature = direction @ image
        if float(curvature) <= 0.0:
            break
        length = energy / curvature
        v = v + length * direction
        remainder = remainder - length * image
        better = remainder if normal is None else normal.solve(remainder)
        new = remainder @ better
        direction = better + new / energy * direction
        energy = new
        steps += 1
    if normal is not None:
        normal.took(steps)
    step = torch.stack([p.square().sum() for p in push(v)]).sum().sqrt()
    return v, _relative(float(step), float(size), scale)


def _dense(
    moved: Callable[[Tensor], tuple[Tensor, ...]],
    zero: Tensor,
    base: tuple[Tensor, ...],
    goals: Sequence[Tensor] | None,
    scale: float,
) -> tuple[Tensor, float]:
    """The same from the whole matrix J, one column for each coordinate."""
    n = zero.shape[0]
    columns = torch.func.vmap(moved)(torch.eye(n, dtype=zero.dtype, device=zero.device))
    jacobian = torch.cat([(c - b).reshape(n, -1) for c, b in zip(columns, base, strict=True)], dim=1)
    apart = base if goals is None else tuple(b - g for b, g in zip(base, goals, strict=True))
    right = -jacobian @ torch.cat([a.reshape(-1) for a in apart])
    values, vectors = torch.linalg.eigh(jacobian @ jacobian.mT)
    inverse = torch.where(values > 1e-14 * values[-1], values.reciprocal(), 0.0)
    v = vectors @ (inverse * (vectors.mT @ right))
    size = float(torch.stack([b.square().sum() for b in base]).sum().sqrt())
    return v, _relative(float((v @ jacobian).norm()), size, scale)


def _relative(step: float, size: float, scale: float) -> float:
    size = max(size, scale)
    return step / size if size > 0 else step


def _kernel(
    symmetry: ReaderKernel | WriterKernel, tensors: Mapping[str, Tensor], reference: Mapping[str, Tensor] | None
) -> tuple[Tensor, float]:
    """The closed forms: s = mean of W₀ − W, and u = ((W₀ − W)n − κ(b₀ − b))/(n·n + κ²) with n = 1/γ and κ = Σβ/γ."""
    weight = tensors[symmetry.weight]
    missing = -weight if reference is None else reference[symmetry.weight] - weight
    size = float(weight.square().sum())
    if isinstance(symmetry, WriterKernel):
        v = missing.mean(symmetry.axis).reshape(-1)
        step = float(v.norm()) * weight.shape[symmetry.axis] ** 0.5
        return v, step / size**0.5 if size else step
    length = weight.shape[symmetry.axis]
    n = weight.new_ones(length) if symmetry.gain is None else tensors[symmetry.gain].reshape(-1).reciprocal()
    pull, kappa = (missing.movedim(symmetry.axis, -1) @ n).reshape(-1), weight.new_zeros(())
    if symmetry.bias is not None and symmetry.shift is not None:
        bias = tensors[symmetry.bias]
        kappa = (n * tensors[symmetry.shift].reshape(-1)).sum()
        short = -bias if reference is None else reference[symmetry.bias] - bias
        pull, size = pull - kappa * short.reshape(-1), size + float(bias.square().sum())
    stiffness = n @ n + kappa * kappa
    v = pull / stiffness
    step = float(v.norm() * stiffness.sqrt())
    return v, step / size**0.5 if size else step


def is_statistic(name: str) -> bool:
    """Whether ``name`` is a running statistic: it moves along and counts in no norm."""
    return name.endswith(("running_mean", "running_var"))
