"""Tolerances from the dtype, and the law that they serve: a gauge transformation changes no output."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from gaugefix.errors import VerificationError
from gaugefix.testing.probe import Probe, relative_change

if TYPE_CHECKING:
    from torch import nn

_ROUNDINGS = 24.0
"""How many eps a transformed network may differ by; a ReLU net of 30 layers needs 10 to 15."""
_DEPTH = 32
"""Weight matrices that one share of roundings is for."""


def tolerance(dtype: torch.dtype, n: int = 1) -> float:
    """Return 24·eps·√n: the relative rounding error that a change of gauge may leave in the outputs.

    Args:
        dtype: of the parameters.
        n: how many shares of rounding errors add up, like a random walk: changes made one after another, or
            stretches of 32 layers in a deep network.

    Example:
        >>> f"{tolerance(torch.float32):.1e}"
        '2.9e-06'
    """
    eps: float = torch.finfo(dtype).eps
    return _ROUNDINGS * eps * math.sqrt(max(1, n))


def assert_invariant(
    model: nn.Module,
    args: Sequence[Any],
    change: Callable[[], object],
    *,
    rtol: float | None = None,
) -> float:
    """Run ``change`` and check that the outputs of ``model`` are the same before and after.

    Args:
        model: any module; compared in eval mode.
        args: inputs.
        change: what changes the model, e.g. ``lambda: gaugefix.project_(model, gauge, "minimal_norm")``.
        rtol: largest relative change that passes; by default that of :func:`tolerance_for`.

    Returns:
        The relative change.

    Raises:
        VerificationError: if an output changes by more.

    Example:
        >>> model = torch.nn.Linear(4, 2)
        >>> assert_invariant(model, (torch.randn(3, 4),), lambda: model.train())
        0.0
    """
    limit = tolerance_for(model) if rtol is None else rtol
    probe = Probe(model, args)
    before = probe()
    change()
    error = relative_change(before, probe())
    if not error <= limit:
        raise VerificationError(
            f"Expected unchanged outputs of {type(model).__name__}, got a relative change of {error:.1e} (tolerance "
            f"{limit:.1e}). What was done is not a symmetry of this model: check the group with gaugefix.verify."
        )
    return error


def tolerance_for(model: nn.Module) -> float:
    """Return the :func:`tolerance` of the least precise parameter; of √n times that for n · 32 weight matrices."""
    matrices = sum(1 for p in model.parameters() if p.ndim > 1)
    return tolerance(least_precise(model), n=-(-matrices // _DEPTH))


def least_precise(model: nn.Module) -> torch.dtype:
    """Return the floating dtype of the parameters with the largest eps (float32 if there is none)."""
    dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps, default=torch.float32)
