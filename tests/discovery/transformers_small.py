"""Small attention networks, written with what PyTorch has."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 0.05  # a large eps separates exact directions from those that a norm only nearly ignores


def heads(x: Tensor, n: int) -> Tensor:
    """(batch, positions, channels) → (batch, heads, positions, channels of a head)."""
    return x.unflatten(-1, (n, -1)).transpose(1, 2)


class SelfAttention(nn.Module):
    """``nn.MultiheadAttention`` on one input."""

    def __init__(self, width: int = 8, n: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, n, dropout, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class CrossAttention(nn.Module):
    """Queries from one input, keys and values from another of a different width."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 8), nn.Linear(5, 8), nn.Linear(5, 8)
        self.out = nn.Linear(8, 8)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        q, k, v = heads(self.q(x), 2), heads(self.k(memory), 2), heads(self.v(memory), 2)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class GroupedQueries(nn.Module):
    """Two query heads that share one key and value head."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 4), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = heads(self.q(x), 2), heads(self.k(x), 1), heads(self.v(x), 1)
        return self.out(F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A pre-norm decoder block with fused projections."""

    def __init__(self, width: int = 8, n: int = 2, inner: int = 12, dropout: float = 0.0) -> None:
        super().__init__()
        self.n, self.dropout = n, dropout
        self.norm1, self.norm2 = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (heads(part, self.n) for part in self.qkv(self.norm1(x)).chunk(3, -1))
        p = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Decoder(nn.Module):
    """Like GPT-2: learned positions, pre-norm blocks, a head without bias."""

    def __init__(self, vocabulary: int = 13, positions: int = 8, width: int = 8, layers: int = 2) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.blocks = nn.Sequential(*[Block(width) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width, EPS), nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        return self.head(self.norm(self.blocks(x)))


class RotaryBlock(nn.Module):
    """Like Llama: RMS norms with gains, rotary positions, grouped queries, a gated inner layer, no biases."""

    def __init__(self, width: int = 8, inner: int = 12) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(width, EPS), nn.RMSNorm(width, EPS)
        self.q, self.k, self.v = (nn.Linear(width, size, bias=False) for size in (8, 4, 4))
        self.out = nn.Linear(8, width, bias=False)
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def rotate(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] / torch.tensor([1.0, 10.0], dtype=x.dtype)
        angles = torch.cat([angles, angles], -1)
        first, second = x.chunk(2, -1)
        return x * angles.cos() + torch.cat([-second, first], -1) * angles.sin()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        q, k, v = self.rotate(heads(self.q(y), 2)), self.rotate(heads(self.k(y), 1)), heads(self.v(y), 1)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class RotaryDecoder(nn.Module):
    """Like Llama, with tied or untied embeddings."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(13, 8)
        self.blocks = nn.Sequential(RotaryBlock(), RotaryBlock())
        self.norm, self.head = nn.RMSNorm(8, EPS), nn.Linear(8, 13, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.tokens(ids))))


def encoder(norm_first: bool, dropout: float = 0.0) -> nn.TransformerEncoder:
    """Two layers of ``nn.TransformerEncoder`` with GELU."""
    layer = nn.TransformerEncoderLayer(
        8, 2, 12, dropout, "gelu", batch_first=True, norm_first=norm_first, layer_norm_eps=EPS
    )
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
