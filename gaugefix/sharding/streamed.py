"""Streamed: a sharded model that gathers the parameters of one layer after another, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from gaugefix.sharding.structure import structure_of

_IN_ONE = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
"""Modules that use the weights of their children without calling them."""


class Streamed(nn.Module):
    """The function of a module for given values, of which one layer at a time is held as a whole.

    The parameters of a layer are there while it is called. A module that uses those of another one without calling it
    cannot be computed so, and raises an error of torch.

    Args:
        module: whose function it is; left as it is.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.values: Mapping[str, Tensor] = {}
        structure = structure_of(module).to("meta")
        self._hidden = [structure]  # in a list: no submodule, so that nobody meets its parameters without values
        self._buffers_of = _places(structure, "_buffers")
        within = {id(m) for whole in structure.modules() if isinstance(whole, _IN_ONE) for m in whole.modules()}
        for path, inner in structure.named_modules():
            found = list(_places(inner, "_parameters", path, whole=isinstance(inner, _IN_ONE)))
            if found and (isinstance(inner, _IN_ONE) or id(inner) not in within):
                self._stream(inner, found)

    def _stream(self, inner: nn.Module, places: list[tuple[nn.Module, str, str]]) -> None:
        empty = [owner._parameters[key] for owner, key, _ in places]

        def fill(*_: Any) -> None:
            for owner, key, name in places:
                owner._parameters[key] = nn.Parameter(_double(self.values[name]), requires_grad=False)

        def drop(*_: Any) -> None:
            for place, parameter in zip(places, empty, strict=True):
                place[0]._parameters[place[1]] = parameter

        inner.register_forward_pre_hook(fill)
        inner.register_forward_hook(drop, always_call=True)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute with :attr:`values`, the parameters and buffers by name; whoever sets them is to see to float64."""
        structure = self._hidden[0].train(self.training)
        for owner, key, name in self._buffers_of:
            owner._buffers[key] = _double(self.values[name]).clone()
        return structure(*args, **kwargs)


def _places(module: nn.Module, kind: str, path: str = "", whole: bool = True) -> list[tuple[nn.Module, str, str]]:
    """Owner, key and qualified name of the parameters or buffers of a module, or of all below it."""
    found = []
    for below, inner in module.named_modules(prefix=path, remove_duplicate=False) if whole else [(path, module)]:
        for key, tensor in getattr(inner, kind).items():
            if tensor is not None:
                name = f"{below}.{key}" if below else key
                found.append((inner, key, name.replace("_orig_mod.", "")))
    return found


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor
