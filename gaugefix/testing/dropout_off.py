"""dropout_off: run a model in train mode without its random masks."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_DROPOUT_P = 4
"""Place of ``dropout_p`` among the arguments of scaled_dot_product_attention."""


class DropoutOff(TorchFunctionMode):
    """Make every dropout the identity, whether a module or a function asks for it.

    Example:
        >>> x = torch.ones(3)
        >>> with DropoutOff():
        ...     torch.nn.functional.dropout(x, 0.5)
        tensor([1., 1., 1.])
    """

    def __torch_function__(
        self, func: Any, types: Iterable[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "scaled_dot_product_attention":
            if len(args) > _DROPOUT_P:
                args = (*args[:_DROPOUT_P], 0.0, *args[_DROPOUT_P + 1 :])
            else:
                kwargs["dropout_p"] = 0.0
        elif "dropout" in name:
            return args[0] if args else kwargs["input"]
        if func is torch.nn.functional.multi_head_attention_forward:
            given = inspect.signature(func).bind(*args, **kwargs)
            given.arguments["dropout_p"] = 0.0
            args, kwargs = given.args, given.kwargs
        return func(*args, **kwargs)
