"""How fast weights change with depth."""

from __future__ import annotations

from torch import Tensor

from gaugefix.errors import FieldError


def depth_smoothness(weights: Tensor, times: Tensor) -> Tensor:
    """Return Σ ‖W_{k+1} − W_k‖²/(t_{k+1} − t_k), the lattice form of ∫ ‖∂_t W‖² dt.

    As a gauge condition its aim is Ẇ = 0; in Landau gauge, Ẇ = [W, Wᵀ], this holds only for normal W. It needs no data.
    It is invariant under constant rotations of the state, and under nothing else that holds for every network.

    Args:
        weights: W at the times, shape (times, ...): a stack of layers, or the field's weight sampled.
        times: shape (times,), rising.

    Returns:
        Shape (), differentiable.

    Raises:
        FieldError: shapes that do not fit, or times that do not rise.

    Example:
        >>> import torch
        >>> depth_smoothness(torch.tensor([[[0.0]], [[1.0]], [[3.0]]]), torch.tensor([0.0, 1.0, 2.0]))
        tensor(5.)
    """
    if times.ndim != 1 or len(times) < 2 or not bool((times.diff() > 0).all()):
        raise FieldError(f"Expected two or more rising times for times, got {times.tolist()}. Sort them.")
    if len(weights) != len(times):
        raise FieldError(
            f"Expected shape ({len(times)}, ...) for weights, got {tuple(weights.shape)}. One for each time."
        )
    return (weights.diff(dim=0).flatten(1).square().sum(1) / times.diff()).sum()
