"""Layer norms that are written out count as nn.LayerNorm does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gaugefix
from gaugefix.testing import redundancy
from tests.discovery.transformers_small import EPS, Decoder
from tests.zoo.survey import by_kind

Normalize = Callable[[Tensor], Tensor]


def mean(x: Tensor) -> Tensor:
    return x.mean(-1, keepdim=True)


WAYS: dict[str, Normalize] = {
    "twice centred": lambda x: (x - mean(x)) * torch.rsqrt((x - mean(x)).pow(2).mean(-1, keepdim=True) + EPS),
    "with sqrt": lambda x: (x - mean(x)) / torch.sqrt(x.var(-1, keepdim=True, unbiased=False) + EPS),
    "with std": lambda x: (x - mean(x)) / (x.std(-1, keepdim=True) + EPS),
    "in float32": lambda x: WAYS["twice centred"](x.to(torch.float32)).to(x.dtype),
}


def centred_once(x: Tensor) -> Tensor:
    c = x - mean(x)
    return c * (c.square().mean(-1, keepdim=True) + EPS) ** -0.5


WAYS["centred once"] = centred_once

NEARLY: dict[str, Normalize] = {
    "of something else": lambda x: (x - mean(x)) * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS),
    "another mean": lambda x: (x - mean(2 * x)) / torch.sqrt(x.var(-1, keepdim=True) + EPS),
    "half a mean": lambda x: torch.sub(x, mean(x), alpha=0.5) / torch.sqrt(x.var(-1, keepdim=True) + EPS),
    "over positions": lambda x: (x - x.mean(-2, keepdim=True)) / (x.std(-2, keepdim=True) + EPS),
    "rounded": lambda x: torch.div(x - mean(x), x.std(-1, keepdim=True) + EPS, rounding_mode="floor"),
    "an eps of the data": lambda x: (x - mean(x)) / (x.std(-1, keepdim=True) + x[..., :1].square() + 1.0),
}


class WrittenOut(nn.Module):
    """A layer norm of 8 channels by hand."""

    def __init__(self, normalize: Normalize, bias: bool = True) -> None:
        super().__init__()
        self.normalize = normalize
        self.weight = nn.Parameter(torch.ones(8))
        self.bias = nn.Parameter(torch.zeros(8)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.weight * self.normalize(x)
        return y if self.bias is None else y + self.bias


def replaced(model: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
    """The model with other layer norms."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.LayerNorm):
                setattr(module, name, make())
    return model


IDS = (torch.arange(24).reshape(3, 8) % 13,)


@pytest.mark.parametrize("name", WAYS)
def test_a_decoder_has_all_its_dimensions(name):
    model = replaced(Decoder(layers=1), lambda: WrittenOut(WAYS[name]))
    gauge = gaugefix.discover(model, IDS)
    assert by_kind(gauge) == by_kind(gaugefix.discover(Decoder(layers=1), IDS))
    assert gaugefix.verify(model, gauge, IDS).error <= 1e-12


def test_without_a_shift_as_well():
    written = replaced(Decoder(layers=1), lambda: WrittenOut(WAYS["twice centred"], bias=False))
    module = replaced(Decoder(layers=1), lambda: nn.LayerNorm(8, EPS, bias=False))
    gauge = gaugefix.discover(written, IDS)
    assert by_kind(gauge) == by_kind(gaugefix.discover(module, IDS))
    assert gaugefix.verify(written, gauge, IDS).error <= 1e-12


def test_the_jacobian_agrees_on_a_small_net():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.second = nn.Linear(5, 8), WrittenOut(WAYS["with std"]), nn.Linear(8, 9)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.tanh(self.norm(self.first(x))))

    model, x = Net(), torch.randn(6, 5)
    assert gaugefix.discover(model, (x,)).dimension == redundancy(model, (x,), draws=1).nullity


@pytest.mark.parametrize("name", NEARLY)
def test_what_is_nearly_a_layer_norm_is_none(name):
    model = replaced(Decoder(layers=1), lambda: WrittenOut(NEARLY[name]))
    gauge = gaugefix.discover(model, IDS)
    assert gaugefix.verify(model, gauge, IDS).error <= 1e-12
    assert "Kernel" not in by_kind(gauge)


def test_a_norm_whose_inner_values_are_read_elsewhere_is_sound():
    class Leaky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.weight, self.second = nn.Linear(5, 8), nn.Parameter(torch.ones(8)), nn.Linear(8, 9)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            h = self.first(x)
            spread = h.std(-1, keepdim=True) + EPS
            return self.second((h - mean(h)) / spread * self.weight), spread

    model, x = Leaky(), torch.randn(6, 5)
    gauge = gaugefix.discover(model, (x,))
    assert gaugefix.verify(model, gauge, (x,)).error <= 1e-12
