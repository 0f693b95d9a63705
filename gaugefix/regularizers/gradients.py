"""What a term adds to: the gradients of parameters, or of the rows here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gaugefix.errors import SettingError
from gaugefix.sharding import is_dtensor, rows_here


def gradients_of(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the gradients by name; parameters that have none are left out.

    Raises:
        SettingError: for a sparse gradient.
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
        gradients[name] = gradient
    return gradients


@torch.no_grad()
def gradients_of_rows(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As :func:`gradients_of`; of sharded parameters, the gradients of the rows here.

    Raises:
        SettingError: for a gradient that is sparse, or not sharded as its parameter is.
    """
    gradients = gradients_of(parameters)
    for name, gradient in gradients.items():
        if is_dtensor(parameters[name]):
            wanted, got = _placements(parameters[name]), _placements(gradient)
            if got != wanted:
                raise SettingError(
                    f"Expected a gradient of '{name}' with the placements {wanted} of the parameter, got {got}. Leave "
                    "the sharding of gradients to fully_shard."
                )
            gradients[name] = rows_here(gradient)
    return gradients


def _placements(tensor: Any) -> Any:
    return getattr(tensor, "placements", None)
