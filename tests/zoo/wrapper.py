"""A `transformers` model as a function from tensors to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

EPS = 0.05
"""Of every norm: a small eps makes the scale in front of a norm nearly, but not exactly, redundant."""

_EPS_NAMES = ("eps", "variance_epsilon", "epsilon")
_OUTPUTS = ("logits", "prediction_logits", "logits_per_image", "last_hidden_state")


class Outputs(nn.Module):
    """Calls a model by keyword and returns one tensor of what it returns.

    Args:
        model: a `transformers` model.
        keys: names of the inputs, in the order in which they are given.
        fixed: further keyword inputs.
    """

    def __init__(self, model: nn.Module, keys: Sequence[str] = ("input_ids",), fixed: dict[str, Any] | None = None):
        super().__init__()
        self.model, self.keys, self.fixed = model, tuple(keys), dict(fixed or {})

    def forward(self, *inputs: Tensor) -> Tensor:
        out = self.model(**dict(zip(self.keys, inputs, strict=True)), **self.fixed)
        return next(out[name] for name in _OUTPUTS if name in out)


@dataclass(frozen=True)
class Entry:
    """One architecture of the zoo.

    Args:
        config: class of its configuration.
        model: class of the model.
        settings: of the configuration; small numbers.
        inputs: names of the inputs: ``input_ids``, ``decoder_input_ids``, ``pixel_values``, …
        attention: what ``attn_implementation`` it knows.
        fixed: further keyword inputs of the forward pass.
        shape: of one floating-point input.
    """

    config: str
    model: str
    settings: dict[str, Any]
    inputs: tuple[str, ...] = ("input_ids",)
    attention: tuple[str, ...] = ("sdpa", "eager")
    fixed: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (3, 8, 8)

    def build(self, attention: str | None = None, seed: int = 0) -> tuple[Outputs, tuple[Tensor, ...]]:
        """Return the model (eval mode, float32, large eps) and example inputs."""
        import transformers

        settings = {"attn_implementation": attention or self.attention[0], **self.settings}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            config = getattr(transformers, self.config)(**settings)
            model = getattr(transformers, self.model)(config)
            enlarge_eps(model)
            inputs = tuple(self._example(key) for key in self.inputs)
        return Outputs(model, self.inputs, self.fixed).eval(), inputs

    def _example(self, key: str) -> Tensor:
        if key.endswith("input_ids"):
            return torch.randint(3, VOCABULARY, (2, LENGTH if key == "input_ids" else LENGTH - 2))
        return torch.randn(2, *self.shape)


VOCABULARY, LENGTH = 19, 6


def enlarge_eps(model: nn.Module, eps: float = EPS) -> None:
    """Set the eps of every norm, whatever it is called."""
    for module in model.modules():
        for name in _EPS_NAMES:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, eps)
