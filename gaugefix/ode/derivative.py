"""Derivatives along a direction, and in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp


def derivative_along(function: Callable[..., Any], at: tuple[Tensor, ...], direction: tuple[Tensor, ...]) -> Any:
    """Return a function's value and its derivative along a direction, a Jacobian-vector product.

    The pullback u → uᵀJ is linear, so the pullback of that is v → Jv. Forward differentiation would do the same, but
    in PyTorch 2.13 the tangent of a float32 scalar times a Python number is float64, and takes longer.

    Args:
        function: of as many tensors as ``at`` has; returns a tensor or a tuple of them.
        at: where.
        direction: shapes and dtypes as ``at``.

    Returns:
        The value and the derivative, of one structure.

    Example:
        >>> derivative_along(torch.square, (torch.tensor(3.0),), (torch.tensor(1.0),))
        (tensor(9.), tensor(6.))
    """
    pulled = vjp(function, *at)
    value, pull_back = pulled[0], pulled[1]
    single = isinstance(value, Tensor)
    zeros = torch.zeros_like(value) if single else tuple(torch.zeros_like(part) for part in value)
    pushed = vjp(pull_back, zeros)
    (derivative,) = pushed[1](direction)
    return value, derivative


def with_rate(function: Callable[[Tensor], Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
    """Return a function's value and its derivative at one time.

    Args:
        function: from t of shape () to any shape.
        t: shape ().
    """
    value, rate = derivative_along(function, (t,), (torch.ones_like(t),))
    return value, rate
