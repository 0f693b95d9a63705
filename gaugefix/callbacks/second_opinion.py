"""Second opinion: what a motion of parameters changes where float64 computes, not the network's own precision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from gaugefix.sharding import Shards, Streamed, reshard_
from gaugefix.symmetry import named_tensors
from gaugefix.testing import Probe, relative_change
from gaugefix.testing.double_precision import double_precision
from gaugefix.testing.fresh_inputs import as_double


def change_in_double(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], before: Mapping[int, Tensor]
) -> float:
    """Return the relative change of the outputs, computed in float64, when ``before`` becomes what is there now.

    A network in a bad gauge rounds its own outputs off: brought into a good one, it gives others in float32, by the
    error that it had before. In float64 that error is gone, and what is left is what the motion did.

    Args:
        model: where the parameters have moved; left as it is.
        args: positional inputs.
        kwargs: keyword inputs.
        before: the values of parameters and buffers that moved, by the ``id`` of the tensor.

    Returns:
        As :func:`relative_change`; infinite where the model does not compute in float64 or there is no memory for it.
    """
    double = _InDouble(model)
    probe = Probe(double, tuple(map(as_double, args)), {name: as_double(value) for name, value in kwargs.items()})
    device = next((p.device.type for p in model.parameters()), "cpu")
    tensors = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    outputs = []
    try:
        with double_precision(device):
            for state in ({name: before.get(id(t), t) for name, t in tensors.items()}, tensors):
                double.state = {name: as_double(t.detach()) for name, t in state.items()}
                outputs.append(probe())
    except (RuntimeError, TypeError, ValueError, NotImplementedError):  # torch.OutOfMemoryError is a RuntimeError
        return math.inf
    return relative_change(*outputs)


def change_in_double_of_shards(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], before: Mapping[int, Tensor]
) -> float:
    """The same for a sharded model: one layer at a time is gathered. All processes call it together.

    Args:
        model: where the parameters have moved; left as it is.
        args: positional inputs.
        kwargs: keyword inputs.
        before: the rows here of parameters, and the buffers, that moved, by the ``id`` of the tensor.
    """
    reshard_(model)
    tensors = named_tensors(model)
    now = Shards(tensors)
    then = now.with_rows({name: before[id(t)] for name, t in tensors.items() if id(t) in before})
    double = Streamed(model)
    probe = Probe(double, tuple(map(as_double, args)), {name: as_double(value) for name, value in kwargs.items()})
    outputs = []
    try:
        with double_precision(now.mesh.device_type):
            for state in (then, now):
                double.values = state
                outputs.append(probe())
    except (RuntimeError, TypeError, ValueError, NotImplementedError):
        return math.inf
    return relative_change(*outputs)


class _InDouble(nn.Module):
    """A model with other parameters and buffers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.state: dict[str, Tensor] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return functional_call(self.model, self.state, args, kwargs, tie_weights=False)
