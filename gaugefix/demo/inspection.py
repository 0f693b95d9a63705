"""``gaugefix inspect``: the gauge table of a model that is named on the command line."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

import gaugefix
from gaugefix.errors import DiscoveryError, did_you_mean

MODELS = {
    "mlp": "gaugefix.demo.mlp:MLP",
    "residual_cnn": "gaugefix.demo.residual_cnn:ResidualCNN",
    "rotary_decoder": "gaugefix.demo.rotary_decoder:RotaryDecoder",
    "layernorm_decoder": "gaugefix.demo.layernorm_decoder:LayerNormDecoder",
}
"""Short names of the recipes' models."""
SHAPE = "(model, args), (model, args, kwargs) or a LightningModule with an example_input_array"


class TargetError(DiscoveryError):
    """What was named on the command line is no model that can be inspected."""


def inspect_model(target: str, verify: bool = False) -> str:
    """Return the gauge table of ``target``.

    Args:
        target: a key of :data:`MODELS`, or ``package.module:callable``.
        verify: also prove the symmetries numerically.

    Raises:
        TargetError: if there is no such thing, or it gives no model.
    """
    model, args, kwargs = make(load(target), target)
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # torch.export prints the graph that it gave up on
        gauge = gaugefix.discover(model, args, kwargs)
    lines = [str(gauge)]
    if verify:
        lines.append(str(gaugefix.verify(model, gauge, args, kwargs)))
    return "\n".join(lines)


def load(target: str) -> Callable[[], Any]:
    """Import what ``package.module:callable`` names; modules in the working directory count."""
    module_name, colon, name = MODELS.get(target, target).partition(":")
    if not (module_name and colon and name):
        raise TargetError(
            f"Expected a model such as my_package.my_module:make_model for inspect, got '{target}'. "
            f"{did_you_mean(target, MODELS)}"
        )
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = f"'{error.name}'" if error.name else "a module"
        raise TargetError(
            f"Expected a module that can be imported for inspect, got '{module_name}': there is no {missing}. Start "
            "gaugefix in the directory that holds it, or install it."
        ) from error
    except Exception as error:
        raise TargetError(_raised(f"import '{module_name}'", error)) from error
    factory: Any = getattr(module, name, None)
    if not callable(factory):
        known = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        raise TargetError(
            f"Expected a callable of '{module_name}' for inspect, got '{name}'. {did_you_mean(name, known)}"
        )
    return cast("Callable[[], Any]", factory)


def make(factory: Callable[[], Any], target: str) -> tuple[nn.Module, tuple[Any, ...], Mapping[str, Any]]:
    """Call the factory and return the model and its example inputs."""
    try:
        inspect.signature(factory).bind()
    except (TypeError, ValueError) as error:
        raise TargetError(
            f"Expected a callable without arguments for inspect, got '{target}': {error}. Wrap it in a function "
            f"that returns {SHAPE}."
        ) from error
    try:
        made = factory()
    except Exception as error:
        raise TargetError(_raised(f"call '{target}'", error)) from error
    example = getattr(made, "example_input_array", None)
    if isinstance(made, nn.Module) and example is not None:
        if isinstance(example, Mapping):
            return made, (), example
        return made, example if isinstance(example, tuple) else (example,), {}
    if isinstance(made, tuple) and len(made) in (2, 3) and isinstance(made[0], nn.Module):
        model, args, *rest = made
        args = (args,) if isinstance(args, Tensor) else tuple(args)
        return model, args, dict(*rest)
    raise TargetError(f"Expected '{target}' to return {SHAPE}, got {type(made).__name__}. Change its return value.")


def _raised(what: str, error: Exception) -> str:
    return f"Expected to {what} for inspect, got {type(error).__name__}: {error}. Mend it there first."
