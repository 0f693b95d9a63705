"""gradients_of: what a term adds to."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gaugefix.errors import SettingError
from gaugefix.sharding import is_dtensor, rows_here


@torch.no_grad()
def gradients_of(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the gradients by name, of shards those of the rows here; parameters that have none are left out.

    Raises:
        SettingError: for a sparse gradient, or one that is not sharded as its parameter is.
    """
    gradients: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        gradient = parameter.grad
        if gradient is None:
            continue
        if gradient.layout is not torch.strided:
            raise SettingError(
                f"Expected a dense gradient for '{name}', got a sparse one. Give sparse=False to its embedding, or "
                "leave GaugeRegularizer out."
            )
        gradients[name] = rows = rows_here(gradient)
        if is_dtensor(parameter) and (rows is gradient or rows.shape != rows_here(parameter).shape):
            raise SettingError(
                f"Expected a gradient of '{name}' that is sharded as the parameter is, got one of shape "
                f"{tuple(rows.shape)}. Leave the sharding of gradients to fully_shard."
            )
    return gradients
