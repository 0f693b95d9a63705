"""ExampleInputs: what a module is called with, from ``example_input_array`` or from its first call in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.hooks import RemovableHandle

from gaugefix.sharding import is_sharded, structure_of
from gaugefix.testing import Probe

ROWS = 8
"""How many rows of a batch are kept at most."""


@dataclass(frozen=True, eq=False)
class ExampleInputs:
    """The arguments of one call."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @classmethod
    def of(cls, array: Any) -> ExampleInputs:
        """Read an ``example_input_array``: a tensor, a tuple of arguments or a dictionary of keywords."""
        if isinstance(array, Mapping):
            return cls((), dict(array))
        return cls(tuple(array) if isinstance(array, (tuple, list)) else (array,), {})

    def on_tensors(self, function: Callable[[Tensor], Tensor]) -> ExampleInputs:
        """Apply ``function`` to every tensor, however deeply nested."""
        everything = (self.args, dict(self.kwargs))
        args, kwargs = pytree.tree_map(lambda x: function(x) if isinstance(x, Tensor) else x, everything)
        return ExampleInputs(args, kwargs)

    def fitted(self, module: nn.Module) -> ExampleInputs:
        """Move to the device and dtype of ``module``'s parameters, and keep few rows if ``module`` takes them.

        Autocast may have handed half precision to a module whose parameters are not.
        """
        like = next((p for p in module.parameters() if p.is_floating_point()), None)
        if like is None:
            return self
        whole = self.on_tensors(lambda t: t.detach().to(like.device, like.dtype if t.is_floating_point() else t.dtype))
        tensors = [t for t in pytree.tree_leaves((whole.args, whole.kwargs)) if isinstance(t, Tensor)]
        sizes = {t.shape[0] if t.ndim else 0 for t in tensors}
        if len(sizes) != 1 or sizes.pop() <= ROWS:
            return whole
        cut = whole.on_tensors(lambda t: t[:ROWS].clone())
        try:
            if is_sharded(module):  # processes must not wait for one another here: their inputs may differ in size
                few = cut.on_tensors(lambda t: t.to("meta"))
                Probe(structure_of(module).to("meta"), few.args, few.kwargs)()
            else:
                Probe(module, cut.args, cut.kwargs)()
        except Exception:  # whatever it is, the first axis was no batch axis
            return whole
        return cut


class Recorder:
    """Records the arguments of the first call of some modules, until it is removed.

    Compiled modules run uncompiled meanwhile: otherwise the recording would be compiled into them.

    Args:
        modules: by path.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self.calls: dict[str, ExampleInputs] = {}
        _Eager.enter()
        self._handles: list[RemovableHandle] = [
            module.register_forward_pre_hook(self._hook(path), with_kwargs=True) for path, module in modules.items()
        ]

    def _hook(self, path: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            # DDP calls the LightningModule with the arguments of training_step, its forward patched for that call.
            patched = "_ForwardRedirection" in getattr(module.forward, "__qualname__", "")
            if path not in self.calls and not patched:
                self.calls[path] = ExampleInputs(args, kwargs).on_tensors(lambda t: t.detach().clone())

        return record

    def remove(self) -> None:
        """Stop recording."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        _Eager.leave()


class _Eager:
    """Keeps compiled modules uncompiled as long as one of several recorders needs it."""

    needed = 0
    stance: Any = None

    @classmethod
    def enter(cls) -> None:
        cls.needed += 1
        if cls.needed == 1:
            cls.stance = torch.compiler.set_stance("force_eager")

    @classmethod
    def leave(cls) -> None:
        cls.needed -= 1
        if cls.needed == 0:
            cls.stance.__exit__(None, None, None)
