"""Causal self-attention, with or without rotary positions and grouped heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class Rotary(nn.Module):
    """Rotary positions (Su et al., arXiv:2104.09864), in the half-split form.

    Channels j and j + size/2 of a head form a plane. At position t it turns by t·base^(−2j/size).

    Args:
        size: channels of a head; even.
        positions: the most that there can be.
        base: of the wavelengths.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, size: int, positions: int, base: float = 10_000.0) -> None:
        super().__init__()
        if size % 2:
            raise ValueError(f"Expected an even number of channels per head for rotary positions, got {size}.")
        rates = base ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
        angles = torch.arange(positions, dtype=torch.float64)[:, None] * rates
        self.register_buffer("cos", angles.cos().float(), persistent=False)  # (positions, size/2)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Turn (…, positions, size)."""
        cos, sin = self.cos[: x.shape[-2]], self.sin[: x.shape[-2]]
        first, second = x.chunk(2, -1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class CausalAttention(nn.Module):
    """Softmax attention in which no position sees a later one.

    Args:
        width: channels in and out.
        heads: query heads; divides width.
        kv_heads: key and value heads; divides heads. Each serves heads/kv_heads query heads.
        bias: whether the four projections have biases.
        rotary: turns queries and keys; none for positions that are added to the input.
    """

    def __init__(self, width: int, heads: int, kv_heads: int, bias: bool, rotary: Rotary | None = None) -> None:
        super().__init__()
        if width % heads or heads % kv_heads:
            raise ValueError(
                f"Expected heads that divides width, and kv_heads that divides heads, got width {width}, heads {heads} "
                f"and kv_heads {kv_heads}. For instance width 96, heads 4, kv_heads 2."
            )
        self.size = width // heads
        self.q = nn.Linear(width, heads * self.size, bias)
        self.k = nn.Linear(width, kv_heads * self.size, bias)
        self.v = nn.Linear(width, kv_heads * self.size, bias)
        self.o = nn.Linear(width, width, bias)
        self.rotary = rotary

    def forward(self, x: Tensor) -> Tensor:
        """Attend within (batch, positions, width)."""
        q, k, v = (layer(x).unflatten(-1, (-1, self.size)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        grouped = q.shape[1] != k.shape[1]
        attended = scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        out: Tensor = self.o(attended.transpose(1, 2).flatten(2))
        return out
