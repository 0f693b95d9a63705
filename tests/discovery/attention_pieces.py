"""What a random attention network is made of: ways to write norms, positions, masks, weights and linear maps.

Most are what people write; some only look like it, which is where false symmetries hide.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.discovery import attention_parts as parts
from tests.discovery.attention_parts import EPS

One = Callable[[Tensor], Tensor]
Two = Callable[[Tensor, Tensor], Tensor]


def triangle(s: Tensor) -> Tensor:
    return torch.ones(s.shape[-2:], dtype=torch.bool).triu(1)


# ---- norms that are written out --------------------------------------------------------------------------------------
MEAN_SQUARES: dict[str, One] = {
    "pow": lambda x: x.pow(2).mean(-1, keepdim=True),
    "square": lambda x: x.square().mean(-1, keepdim=True),
    "x·x": lambda x: (x * x).mean(-1, keepdim=True),
    "float": lambda x: x.float().pow(2).mean(-1, keepdim=True).to(x.dtype),
    "variance": lambda x: (x - x.mean(-1, keepdim=True)).pow(2).mean(-1, keepdim=True),
}
ROOTS: dict[str, Two] = {
    "rsqrt": lambda x, m: x * torch.rsqrt(m + EPS),
    "/ sqrt": lambda x, m: x / torch.sqrt(m + EPS),
    "pow −½": lambda x, m: x * (m + EPS).pow(-0.5),
    "eps outside": lambda x, m: x / (m.sqrt() + EPS),
    "centred": lambda x, m: (x - x.mean(-1, keepdim=True)) * torch.rsqrt(m + EPS),
}
GAINS: dict[str, Two] = {
    "γ": lambda x, g: g * x,
    "1 + γ": lambda x, g: x * (1 + g),
    "γ twice": lambda x, g: x * g + g,
    "none": lambda x, g: x,
    "a number": lambda x, g: x * g[:1],
}


# ---- positions that turn queries and keys ----------------------------------------------------------------------------
def _by_head(x: Tensor) -> Tensor:
    a = parts.angles(x, x.shape[-1] // 2) * torch.arange(1, 1 + x.shape[1], dtype=x.dtype)[:, None, None]
    return parts.by_halves(x, a)


def _frequencies_differ(x: Tensor) -> Tensor:
    a = parts.angles(x, x.shape[-1])
    first, second = x.chunk(2, -1)
    return x * a.cos() + torch.cat([-second, first], -1) * a.sin()


def _before_the_transpose(x: Tensor) -> Tensor:
    a = parts.angles(x, x.shape[-1] // 2)[:, None]
    return parts.by_halves(x.transpose(1, 2), a).transpose(1, 2)


TURNS: dict[str, One] = {
    "halves": parts.by_halves,
    "interleaved": parts.interleaved,
    "parts": parts.in_parts,
    "complex": parts.complex_numbers,
    "partial": parts.partial,
    "before the transpose": _before_the_transpose,
    "from position 1": lambda x: parts.by_halves(x, parts.angles(x, x.shape[-1] // 2, first=1)),
    "by head": _by_head,
    "frequencies differ": _frequencies_differ,
    "padded": lambda x: parts.by_halves(F.pad(x, (0, 2)))[..., : x.shape[-1]],
    "twice": lambda x: parts.by_halves(parts.interleaved(x)),
    "mirrored": lambda x: parts.by_halves(x.flip(-1)),
}


# ---- scores and weights ----------------------------------------------------------------------------------------------
def by_heads(n: int, heads: int, like: Tensor) -> Tensor:
    """Slopes of ALiBi, (heads, positions, positions)."""
    return (parts.slopes(n) * 0.5 ** torch.arange(heads)[:, None, None]).to(like)


MASKS: dict[str, Two] = {
    "causal": lambda s, p: s + torch.full(s.shape[-2:], -1e9).triu(1).to(s),
    "filled": lambda s, p: s.masked_fill(triangle(s), -1e9),
    "where": lambda s, p: torch.where(triangle(s), -1e9, s),
    "filled moderately": lambda s, p: s.masked_fill(triangle(s), -2.0),
    "filled where low": lambda s, p: s.masked_fill(s < -0.5, -1e9),
    "slopes": lambda s, p: s + by_heads(s.shape[-1], s.shape[1], s),
    "bias of each head": lambda s, p: s + p[: s.shape[1], None, None],
    "bias": lambda s, p: s + p[0],
    "scale of each head": lambda s, p: s * p[: s.shape[1], None, None],
    "temperature": lambda s, p: s * p[:1],
    "exp(temperature)": lambda s, p: s * p[0].exp(),
    "soft cap": lambda s, p: 3 * torch.tanh(s / 3),
    "talking heads": lambda s, p: torch.einsum("bhts,hg->bgts", s, p[: s.shape[1], None] * p[: s.shape[1]] + 1),
    "distances": lambda s, p: s + (p[0] * parts.slopes(s.shape[-1])).to(s),
    "negative": lambda s, p: -s,
}
USUAL_MASKS = ["", "", "", "causal", "causal", "filled", "where"]

WEIGHTS: dict[str, One] = {
    "softmax": lambda s: s.softmax(-1),
    "softmax over queries": lambda s: s.softmax(-2),
    "softmax over heads": lambda s: s.softmax(1),
    "softmax written out": lambda s: (e := (s - s.amax(-1, keepdim=True)).exp()) / e.sum(-1, keepdim=True),
    "sigmoid": lambda s: s.sigmoid(),
    "no softmax": lambda s: s / s.shape[-1],
    "softmax with a sink": lambda s: F.pad(s, (0, 1)).softmax(-1)[..., :-1],
    "softmax of a sum": lambda s: (s + s.mT).softmax(-1),
}
AVERAGES: dict[str, Two] = {
    "w @ v": lambda w, v: w @ v,
    "w @ v by einsum": lambda w, v: torch.einsum("bhts,bhsd->bhtd", w, v),
    "sum of w @ v by einsum": lambda w, v: torch.einsum("bhts,bhsd->bhd", w, v)[:, :, None].expand(v.shape),
    "w @ v by bmm": lambda w, v: torch.bmm(w.flatten(0, 1), v.flatten(0, 1)).unflatten(0, v.shape[:2]),
}


# ---- small changes ---------------------------------------------------------------------------------------------------
CHANGES: dict[str, Two] = {
    "tanh": lambda x, p: torch.tanh(x),
    "relu": lambda x, p: F.relu(x),
    "2x": lambda x, p: 2 * x,
    "−x": lambda x, p: -x,
    "x·[1, −1, …]": lambda x, p: x * (1 - 2 * (torch.arange(x.shape[-1]) % 2)).to(x),
    "flip channels": lambda x, p: x.flip(-1),
    "roll heads": lambda x, p: x.roll(1, 1),
    "roll positions": lambda x, p: x.roll(1, -2),
    "mean of positions taken off": lambda x, p: x - x.mean(-2, keepdim=True),
    "normalize": lambda x, p: F.normalize(x, dim=-1),
    "x·p": lambda x, p: x * p[: x.shape[-1]],
    "x + p": lambda x, p: x + p[: x.shape[-1]],
    "x·p of axis 1": lambda x, p: x * p[: x.shape[1]].reshape(-1, *[1] * (x.ndim - 2)),
    "decay": lambda x, p: x * 0.9 ** torch.arange(x.shape[-2], dtype=x.dtype)[:, None],
    "one channel": lambda x, p: torch.cat([x[..., :1].tanh(), x[..., 1:]], -1),
}
LONGEST = 24  # entries of the parameter that a change reads a part of
