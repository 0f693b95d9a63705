"""A small decoder like Llama: RMSNorm, rotary positions, grouped heads, SwiGLU, no biases, untied embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from gaugefix.demo.causal_attention import CausalAttention, Rotary
from gaugefix.demo.corpus import VOCABULARY


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x)).

    Args:
        width: channels in and out.
        inner: hidden units.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(silu(self.gate(x)) * self.up(x))
        return out


class RotaryBlock(nn.Module):
    """x + attention(norm(x)), then x + SwiGLU(norm(x)).

    Args:
        width: channels.
        heads: query heads.
        kv_heads: key and value heads.
        context: the most positions.
    """

    def __init__(self, width: int, heads: int, kv_heads: int, context: int) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(width, eps=1e-5)
        self.attention = CausalAttention(width, heads, kv_heads, False, Rotary(width // heads, context))
        self.norm2 = nn.RMSNorm(width, eps=1e-5)
        self.mlp = SwiGLU(width, round(8 * width / 3))  # as many parameters as 4 · width without a gate

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class RotaryDecoder(nn.Module):
    """Characters (batch, positions) → logits (batch, positions, vocabulary) of the next one.

    Args:
        width: channels of the residual stream.
        layers: blocks.
        heads: query heads.
        kv_heads: key and value heads.
        context: the most positions.
    """

    def __init__(self, width: int = 96, layers: int = 3, heads: int = 4, kv_heads: int = 2, context: int = 64) -> None:
        super().__init__()
        self.example_input_array = torch.arange(2 * context).reshape(2, context) % VOCABULARY
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(RotaryBlock(width, heads, kv_heads, context) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits
