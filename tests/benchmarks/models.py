"""Networks of the sizes that figures are quoted for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from tests.discovery.transformers_large import GPT2, GPT2_SIZES, LLAMA_1B, Llama, LlamaBlock


def mlp(sizes: Sequence[int] = (784, 500, 500, 500, 500, 500, 10)) -> nn.Sequential:
    """The MLP 784-500×5-10 with biases and ReLU."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Block(nn.Module):
    """Two 3×3 convolutions with batch norms and a shortcut (He et al. 2015, arXiv 1512.03385, Fig. 2)."""

    def __init__(self, wide_in: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(wide_in, wide, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.short: nn.Module = nn.Identity()
        if stride > 1 or wide_in != wide:
            self.short = nn.Sequential(nn.Conv2d(wide_in, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(h)) + self.short(x))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions with batch norms and a shortcut (He et al. 2015, Fig. 5); the stride in the 3×3."""

    def __init__(self, wide_in: int, wide: int, stride: int) -> None:
        super().__init__()
        out = 4 * wide
        self.conv1, self.bn1 = nn.Conv2d(wide_in, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.conv2, self.bn2 = nn.Conv2d(wide, wide, 3, stride, 1, bias=False), nn.BatchNorm2d(wide)
        self.conv3, self.bn3 = nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out)
        self.short: nn.Module = nn.Identity()
        if stride > 1 or wide_in != out:
            self.short = nn.Sequential(nn.Conv2d(wide_in, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.bn1(self.conv1(x)))
        h = torch.relu(self.bn2(self.conv2(h)))
        return torch.relu(self.bn3(self.conv3(h)) + self.short(x))


class ResNet(nn.Module):
    """A residual network for images: a stem, blocks, and the mean over positions before the head."""

    def __init__(self, blocks: Sequence[nn.Module], width: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.blocks(self.pool(self.stem(x)))
        return self.head(h.mean((2, 3)))


def resnet18(classes: int = 1000) -> ResNet:
    """ResNet-18: 11.7 M parameters, 20 convolutions."""
    widths = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1)]
    widths += [(256, 512, 2), (512, 512, 1)]
    return ResNet([Block(*w) for w in widths], 512, classes)


def resnet50(classes: int = 1000) -> ResNet:
    """ResNet-50: 25.6 M parameters, 53 convolutions."""
    blocks, wide_in = [], 64
    for wide, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for k in range(count):
            blocks.append(Bottleneck(wide_in, wide, stride if k == 0 else 1))
            wide_in = 4 * wide
    return ResNet(blocks, wide_in, classes)


def gpt2_124m() -> GPT2:
    """GPT-2 124M with parameters."""
    with torch.device("meta"):
        model = GPT2(*GPT2_SIZES["124M"])
    return _filled(model, torch.float32)


def llama_1b() -> Llama:
    """A Llama of 1.2 billion parameters, in bfloat16."""
    with torch.device("meta"):
        model = Llama(**LLAMA_1B)
    for block in model.blocks:
        block.register_forward_pre_hook(_in_one_dtype)
    return _filled(model, torch.bfloat16)


def _in_one_dtype(block: LlamaBlock, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Rotary angles are computed in float32 and used in the dtype of the activations."""
    return tuple(t.to(args[0].dtype) for t in args)


@torch.no_grad()
def _filled(model: GPT2 | Llama, dtype: torch.dtype) -> Any:
    """Parameters as GPT-2 starts with, N(0, 0.02²), gains around one; embeddings tied, no entry exactly 0 or 1."""
    model.to(dtype).to_empty(device="cpu")
    model.head.weight = model.tokens.weight
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            nn.init.normal_(p, std=0.02)
            if name == "weight" and isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
                p.add_(1.0)
    return model
