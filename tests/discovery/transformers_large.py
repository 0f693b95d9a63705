"""Attention networks in the sizes that are in use, for the meta device: no parameter needs memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.discovery.transformers_small import heads


class GPT2Block(nn.Module):
    """A pre-norm block with the dropouts of GPT-2."""

    def __init__(self, width: int, n: int, dropout: float) -> None:
        super().__init__()
        self.n, self.dropout = n, nn.Dropout(dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (heads(part, self.n) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        p = self.dropout.p if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p)
        x = x + self.dropout(self.out(attended.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x)))))


class GPT2(nn.Module):
    """GPT-2 (Radford et al. 2019): learned positions, pre-norm blocks, tied embeddings."""

    def __init__(
        self, layers: int, width: int, n: int, vocabulary: int = 50257, positions: int = 1024, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*[GPT2Block(width, n, dropout) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        return self.head(self.norm(self.blocks(self.dropout(x))))


class LlamaBlock(nn.Module):
    """RMS norms with gains, rotary positions, grouped queries, a gated inner layer, no biases."""

    def __init__(self, width: int, inner: int, n: int, groups: int) -> None:
        super().__init__()
        self.n, self.groups, size = n, groups, width // n
        self.norm1, self.norm2 = nn.RMSNorm(width, 1e-5), nn.RMSNorm(width, 1e-5)
        self.q = nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, groups * size, bias=False) for _ in range(2))
        self.out = nn.Linear(width, width, bias=False)
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        y = self.norm1(x)
        q, k, v = heads(self.q(y), self.n), heads(self.k(y), self.groups), heads(self.v(y), self.groups)
        q, k = (z * cos + torch.cat([-z.chunk(2, -1)[1], z.chunk(2, -1)[0]], -1) * sin for z in (q, k))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    """Llama (Touvron et al. 2023, arXiv 2302.13971) with grouped queries and tied embeddings."""

    def __init__(self, layers: int, width: int, inner: int, n: int, groups: int, vocabulary: int) -> None:
        super().__init__()
        self.size = width // n
        self.tokens = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList([LlamaBlock(width, inner, n, groups) for _ in range(layers)])
        self.norm, self.head = nn.RMSNorm(width, 1e-5), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        frequencies = 500_000.0 ** (-torch.arange(0, self.size, 2, device=ids.device) / self.size)
        angles = (places[:, None] * frequencies).repeat(1, 2)
        x = self.tokens(ids)
        for block in self.blocks:
            x = block(x, angles.cos(), angles.sin())
        return self.head(self.norm(x))


GPT2_SIZES = {"124M": (12, 768, 12), "355M": (24, 1024, 16), "774M": (36, 1280, 20), "1.5B": (48, 1600, 25)}
"""Layers, width, heads."""

LLAMA_1B = {"layers": 16, "width": 2048, "inner": 8192, "n": 32, "groups": 8, "vocabulary": 128256}


def gpt2(size: str) -> tuple[nn.Module, tuple[Tensor]]:
    """GPT-2 of a size, and example tokens, without memory."""
    with torch.device("meta"):
        return GPT2(*GPT2_SIZES[size]), (torch.zeros(2, 16, dtype=torch.long),)


def llama() -> tuple[nn.Module, tuple[Tensor]]:
    """A Llama with 1.2 billion parameters, and example tokens, without memory."""
    with torch.device("meta"):
        return Llama(**LLAMA_1B), (torch.zeros(2, 16, dtype=torch.long),)
