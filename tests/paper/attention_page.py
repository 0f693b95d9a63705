"""What docs/attention_tensor.md defines, and layers to apply it to."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import gaugefix

PAGE = Path(__file__).parents[2] / "docs" / "attention_tensor.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
PAGE_NAMES: dict = {}
exec(compile(BLOCKS[0], str(PAGE), "exec"), PAGE_NAMES)
attention_tensor, attend = PAGE_NAMES["attention_tensor"], PAGE_NAMES["attend"]

D, HEADS = 6, 2
over_biases = pytest.mark.parametrize("bias", [True, False], ids=["biases", "no biases"])


class Attend(nn.Module):
    def __init__(self, bias=True, heads=HEADS):
        super().__init__()
        self.attention = nn.MultiheadAttention(D, heads, batch_first=True, bias=bias)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


def layer(bias=True, heads=HEADS, seed=0):
    """A layer with generic weights and biases, its gauge group, and inputs."""
    generator = torch.Generator().manual_seed(seed)
    model = Attend(bias, heads).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    x = torch.randn(3, 5, D, generator=generator, dtype=torch.float64)
    return model, gaugefix.discover(model, (x,)), x


def tensor_of(model):
    return attention_tensor(model.attention).detach()
