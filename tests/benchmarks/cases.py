"""The models that are timed: each with its group, its floor, its optimizers and a training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import gaugefix
from gaugefix.groups import DiagonalGroup
from gaugefix.slices import MinimalNorm, diagonal_part
from gaugefix.symmetry import GaugeGroup
from tests.benchmarks.models import gpt2_124m, llama_1b, mlp, resnet18, resnet50

OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "SGD": lambda model: torch.optim.SGD(model.parameters(), lr=1e-12, momentum=0.9, foreach=True),
    "AdamW": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-12, weight_decay=0.0, foreach=True),
}
"""Steps so small that a model stays where it is while they are timed; with momentum, as they are mostly used."""


@dataclass(frozen=True)
class Kind:
    """How a case is made.

    Args:
        title: its name in tables.
        make: the model, in train mode.
        example: inputs for discovery.
        batch: inputs of a training step; targets are drawn.
        stated: that batch in words.
        classes: what the targets are drawn from.
        optimizers: those that there is memory for.
        diagonal: from where its diagonal part is projected: standard deviations of log λ, 0 for the slice itself. Up to
            1e-2 a projection is warm: about as far as 100 steps lead.
        whole: the same for the whole group; fewer for large models, whose heads take seconds.
    """

    title: str
    make: Callable[[], nn.Module]
    example: Callable[[], Tensor]
    batch: Callable[[], Tensor]
    stated: str
    classes: int
    optimizers: tuple[str, ...] = ("SGD", "AdamW")
    diagonal: tuple[float, ...] = (0.0, 1e-4, 1e-2, 1.0)
    whole: tuple[float, ...] = (0.0, 1e-4, 1e-2, 1.0)

    @property
    def small(self) -> bool:
        """Whether the whole group is measured in every respect."""
        return len(self.whole) > 1


def _tokens(rows: int, length: int) -> Callable[[], Tensor]:
    return lambda: torch.randint(50257, (rows, length))


def _images(rows: int, side: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(rows, 3, side, side)


KINDS: dict[str, Kind] = {
    "mlp": Kind("MLP 784-500×5-10", mlp, lambda: torch.randn(2, 784), lambda: torch.randn(128, 784), "128 vectors", 10),
    "resnet18": Kind("ResNet-18", resnet18, _images(2, 64), _images(8, 224), "8 images of 224 × 224", 1000),
    "resnet50": Kind("ResNet-50", resnet50, _images(2, 64), _images(8, 224), "8 images of 224 × 224", 1000),
    "gpt2": Kind("GPT-2 124M", gpt2_124m, _tokens(2, 16), _tokens(2, 256), "2 × 256 tokens", 50257, whole=(1e-4,)),
    "llama": Kind(
        "Llama 1B",
        llama_1b,
        _tokens(2, 16),
        _tokens(1, 128),
        "1 × 128 tokens, without the optimizer's step",
        128256,
        optimizers=(),
        diagonal=(1e-4, 1e-2),
        whole=(1e-4,),
    ),
}


class Case:
    """A model on its slice, with the works that it is measured against.

    Args:
        name: a key of ``KINDS``.
    """

    def __init__(self, name: str) -> None:
        self.name, self.kind = name, KINDS[name]
        torch.manual_seed(0)
        self.model = self.kind.make().train()
        self.args = (self.kind.example(),)
        self.slice = MinimalNorm()
        self.projected = False
        self._started: tuple[float, GaugeGroup] | None = None
        self._values: list[Tensor] = []

    @cached_property
    def gauge(self) -> GaugeGroup:
        """The whole group."""
        return gaugefix.discover(self.model, self.args)

    @cached_property
    def diagonal(self) -> GaugeGroup:
        """Its diagonal part; the whole group if that is all."""
        return diagonal_part(self.gauge)

    @cached_property
    def tensors(self) -> list[Tensor]:
        """The parameters that the diagonal symmetries own."""
        scalings = [s for s in self.gauge.applied if isinstance(s.group, DiagonalGroup) and s.group.dimension]
        names = {name for s in scalings for name in s.parameters}
        return [p.detach() for name, p in self.model.named_parameters() if name in names]

    @property
    def bytes(self) -> int:
        """Of all parameters, tied ones once."""
        return sum(p.numel() * p.element_size() for p in self.model.parameters())

    # ---- works ------------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def floor(self) -> None:
        """One foreach norm pass and one foreach scale pass over what the diagonal symmetries own."""
        torch._foreach_norm(self.tensors)
        torch._foreach_mul_(self.tensors, 1.0)

    def optimizer(self, name: str) -> torch.optim.Optimizer:
        """Return an optimizer that has made a step, so that its state is there; no gradients are left behind."""
        optimizer = OPTIMIZERS[name](self.model)
        self.fill_gradients()
        optimizer.step()
        self.model.zero_grad(set_to_none=True)
        return optimizer

    def fill_gradients(self) -> None:
        """Give every parameter a gradient of zeros."""
        for p in self.model.parameters():
            p.grad = torch.zeros_like(p)

    def training_step(self, optimizer: torch.optim.Optimizer | None) -> Callable[[], None]:
        """Return a work: forward, backward and the optimizer's step, if there is memory for one."""
        inputs = self.kind.batch()
        rows = inputs.numel() if inputs.dtype == torch.long else len(inputs)  # a target for every token or image
        targets = torch.randint(self.kind.classes, (rows,))

        def step() -> None:
            self.model.zero_grad()
            outputs = self.model(inputs)
            cross_entropy(outputs.reshape(rows, -1).float(), targets).backward()
            if optimizer is not None:
                optimizer.step()

        return step

    @torch.no_grad()
    def start(self, log_std: float, gauge: GaugeGroup) -> Callable[[], None]:
        """Return a work that puts the model a random element away from its slice, always the same one.

        Args:
            log_std: standard deviation of log λ, and of the coordinates of other kinds; 0 for the slice itself.
            gauge: the group whose slice and orbit are meant.
        """
        self.projected = True
        tensors = [t.detach() for t in gauge.check(self.model).values()]
        if self._started != (log_std, gauge):
            self._values = []  # there is no memory for two of them
            gaugefix.project_(self.model, gauge, self.slice)
            if log_std:
                gaugefix.act_(self.model, gauge, gauge.random(log_std, seed=2))
            self._started, self._values = (log_std, gauge), [t.clone() for t in tensors]
        values = self._values

        @torch.no_grad()
        def put_back() -> None:
            torch._foreach_copy_(tensors, values)

        return put_back
