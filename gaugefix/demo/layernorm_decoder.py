"""A small decoder like GPT-2: LayerNorm, learned positions, GELU, biases, tied embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gaugefix.demo.causal_attention import CausalAttention
from gaugefix.demo.corpus import VOCABULARY


class LayerNormBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    Args:
        width: channels.
        heads: query heads.
        kv_heads: key and value heads.
    """

    def __init__(self, width: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads, kv_heads, bias=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class LayerNormDecoder(nn.Module):
    """Characters (batch, positions) → logits (batch, positions, vocabulary) of the next one.

    Args:
        width: channels of the residual stream.
        layers: blocks.
        heads: query heads.
        kv_heads: key and value heads.
        context: the most positions.
    """

    def __init__(self, width: int = 96, layers: int = 3, heads: int = 4, kv_heads: int = 4, context: int = 64) -> None:
        super().__init__()
        self.example_input_array = torch.arange(2 * context).reshape(2, context) % VOCABULARY
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Parameter(torch.empty(context, width))
        self.blocks = nn.ModuleList(LayerNormBlock(width, heads, kv_heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        nn.init.normal_(self.positions, std=width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.positions[: tokens.shape[-1]]
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits
