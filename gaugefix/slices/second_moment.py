"""Second moments of the legs of a matrix symmetry."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from gaugefix.groups import MatrixGroup
from gaugefix.symmetry import LinearSymmetry


def second_moments(
    symmetry: LinearSymmetry, tensors: Mapping[str, Tensor], without: Collection[str] = ()
) -> tuple[Tensor, Tensor]:
    """Return A = Σ_vectors PPᵀ and B = Σ_covectors PPᵀ per block, (batch, n, n), float64.

    Args:
        symmetry: one of a matrix group.
        tensors: parameters by name.
        without: parameters to leave out.
    """
    group = symmetry.group
    assert isinstance(group, MatrixGroup)
    device = tensors[symmetry.legs[0].parameter].device
    moments = [torch.zeros(group.shape, dtype=torch.float64, device=device) for _ in range(2)]
    for leg in symmetry.legs:
        if leg.buffer or leg.parameter in without:
            continue
        vectors, block = symmetry.vectors(leg, tensors[leg.parameter])
        each = torch.einsum("rmi,rmj->mij", vectors.double(), vectors.double())
        moments[0 if leg.power > 0 else 1].index_add_(0, block, each)
    return moments[0], moments[1]
