"""Random attention networks: blocks drawn piece by piece, so that other instructions may read what lies between.

Built on ``random_networks``: registers hold the stream, its norms, queries, keys, scores, weights, and whatever a
random instruction makes of one of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.discovery import attention_pieces as pieces
from tests.discovery.attention_parts import EPS, angles, sdpa
from tests.discovery.random_networks import INSTRUCTIONS, Borrowed, Draw, Function, Program, runs

LENGTH, LONGER = 4, 7
POSITIONS = 9  # rows of a table of positions


@dataclass
class Blocks(Draw):
    """A network in the making: which turn its attentions use, and what it returns besides its last value."""

    turn: str = ""
    extra: list[int] = field(default_factory=list)

    def either(self, made: object, before: int) -> int:
        """What was made, or what there was before if that did not fit."""
        return made if isinstance(made, int) else before

    def name(self, table: object) -> str:
        return str(self.some(list(table)))  # type: ignore[call-overload]

    def one(self, *options: int) -> int:
        return self.random.choice(options)


def norm(d: Blocks, k: int) -> int | None:
    """A norm of PyTorch (at times one that is there already), or one that is written out."""
    n = d.values[k].shape[-1]
    if d.chance(0.55):
        options = [
            nn.LayerNorm(n, EPS),
            nn.LayerNorm(n, EPS),
            nn.LayerNorm(n, EPS, bias=False),
            nn.LayerNorm(n, EPS, elementwise_affine=False),
            nn.RMSNorm(n, EPS),
            nn.RMSNorm(n, EPS, elementwise_affine=False),
        ]
        norms = [m for m in d.program.operations if isinstance(m, (nn.LayerNorm, nn.RMSNorm))]
        there = [m for m in norms if tuple(m.normalized_shape) == (n,)]
        return d.add(d.random.choice(there if there and d.chance(0.15) else options), k)
    square, root, gain = (d.name(table) for table in (pieces.MEAN_SQUARES, pieces.ROOTS, pieces.GAINS))

    def function(x: Tensor, g: Tensor) -> Tensor:
        return pieces.GAINS[gain](pieces.ROOTS[root](x, pieces.MEAN_SQUARES[square](x)), g)

    return d.add(Function(f"norm: {square}, {root}, {gain}", function, d.parameter(n)), k)


def change(d: Blocks, k: int) -> int | None:
    """Something small that happens to queries, values, weights or the stream on their way."""
    name = d.name(pieces.CHANGES)
    return d.add(Function(name, pieces.CHANGES[name], d.parameter(pieces.LONGEST)), k)


def linear(d: Blocks, n: int, out: int) -> nn.Module:
    """A linear map, in one of the ways in which people write one."""
    kind = d.one(*range(8))
    if kind == 0:
        return Function("x @ W", lambda x, w: x @ w, d.parameter(n, out))
    if kind == 1:
        return Function("addmm", _conv1d, d.parameter(n, out), d.parameter(out))
    if kind == 2:
        return Function("x @ Wᵀ", lambda x, w: x @ w.t(), d.parameter(out, n))
    if kind == 3:
        return Function("einsum", lambda x, w: torch.einsum("btc,cd->btd", x, w), d.parameter(n, out))
    return nn.Linear(n, out, bias=d.chance(0.6))


def _conv1d(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.addmm(b, x.reshape(-1, x.shape[-1]), w).reshape(*x.shape[:-1], -1)


def positions(d: Blocks, k: int) -> int | None:
    """Learned or constant positions, added to the stream."""
    n = d.values[k].shape[-1]
    table = d.parameter(POSITIONS, n)
    options: list[nn.Module] = [
        Function("x + p[:T]", lambda x, p: x + p[: x.shape[1]], table),
        Function("x + p[arange]", lambda x, p: x + F.embedding(torch.arange(x.shape[1]), p), table),
        Function("x + sin(positions)", lambda x: x + angles(x, n).sin()),
        Function("x + p", lambda x, p: x + p, d.parameter(1, LENGTH, n)),
    ]
    return d.add(d.random.choice(options), k)


# ---- attention -------------------------------------------------------------------------------------------------------
def attention(d: Blocks, k: int) -> int | None:
    """Projections, positions, scores, weights, values, heads merged, an output map, at times a residual sum."""
    if d.values[k].ndim != 3:
        return None
    k = d.either(norm(d, k), k) if d.chance(0.6) else k
    heads, size = d.one(1, 2, 2, 3), d.one(2, 4, 4)
    groups = heads if d.chance(0.7) else 1
    other = d.like(k)
    source = k if other is None or d.chance(0.85) else other
    found = _fused(d, k, heads, size) if source == k and groups == heads and d.chance(0.4) else None
    found = found or _apart(d, k, source, heads, groups, size)
    if found is None:
        return None
    q, key, v = found
    if d.chance(0.5):
        q, key = _turned(d, q), _turned(d, key)
    q = d.either(norm(d, q), q) if d.chance(0.1) else q
    key = d.either(norm(d, key), key) if d.chance(0.1) else key
    v = d.either(change(d, v), v) if d.chance(0.1) else v
    mixed = _sdpa(d, q, key, v) if d.chance(0.35) else _eager(d, q, key, v)
    if mixed is None:
        return None
    mixed = d.either(change(d, mixed), mixed) if d.chance(0.1) else mixed
    merged = d.function("merge", lambda x: x.transpose(1, 2).flatten(2), mixed)
    return None if merged is None else _back(d, merged, k)


def _fused(d: Blocks, k: int, heads: int, size: int) -> tuple[int, int, int] | None:
    """One projection for queries, keys and values, in some layout."""
    fused = d.add(linear(d, d.values[k].shape[-1], 3 * heads * size), k)
    if fused is None:
        return None
    layout = d.one(0, 1, 2, 3)

    def part(x: Tensor, which: int) -> Tensor:
        if layout == 0:
            return x.unflatten(-1, (3, heads, size))[:, :, which].transpose(1, 2)
        if layout == 1:
            return x.unflatten(-1, (heads, 3, size))[:, :, :, which].transpose(1, 2)
        if layout == 2:
            return x.unflatten(-1, (3, size, heads))[:, :, which].permute(0, 3, 1, 2)
        return x.chunk(3, -1)[which].unflatten(-1, (heads, size)).transpose(1, 2)

    q, key, v = (d.function(f"part {w} of layout {layout}", lambda x, w=w: part(x, w), fused) for w in range(3))
    return None if q is None or key is None or v is None else (q, key, v)


def _apart(d: Blocks, k: int, source: int, heads: int, groups: int, size: int) -> tuple[int, int, int] | None:
    """A projection for each; keys of fewer heads are repeated by hand at times."""

    def project(count: int, origin: int) -> int | None:
        flat = d.add(linear(d, d.values[origin].shape[-1], count * size), origin)
        if flat is None:
            return None
        return d.function(f"{count} heads", lambda x: x.unflatten(-1, (count, size)).transpose(1, 2), flat)

    q, key, v = project(heads, k), project(groups, source), project(groups, source)
    if q is None or key is None or v is None:
        return None
    v = key if d.chance(0.07) else v  # keys that are values
    key = q if groups == heads and d.chance(0.07) else key  # queries that are keys
    if groups < heads and d.chance(0.7):
        if d.chance(0.5):
            key, v = (d.either(d.function("expand", lambda x: x.expand(-1, heads, -1, -1), j), j) for j in (key, v))
        else:
            key, v = (d.either(d.function("repeat", lambda x: x.repeat_interleave(heads, 1), j), j) for j in (key, v))
    return q, key, v


def _turned(d: Blocks, k: int) -> int:
    if d.chance(0.15):
        return k
    if not d.turn or d.chance(0.1):
        d.turn = d.name(pieces.TURNS)
    return d.either(d.function(f"turn: {d.turn}", pieces.TURNS[d.turn], k), k)


class DroppedAttention(nn.Module):
    """Attention that drops weights in train mode."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sdpa(q, k, v, dropout_p=0.2 if self.training else 0.0, enable_gqa=q.shape[1] != k.shape[1])


def _sdpa(d: Blocks, q: int, key: int, v: int) -> int | None:
    if d.chance(0.1):
        return d.add(DroppedAttention(), q, key, v)
    masks = {
        "nothing": lambda q, k: None,
        "a triangle": lambda q, k: ~pieces.triangle(q @ k[:, :1].mT),
        "slopes": lambda q, k: pieces.by_heads(k.shape[-2], q.shape[1], q),
    }
    name = d.name(["nothing"] * 3 + list(masks))

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sdpa(q, k, v, attn_mask=masks[name](q, k), enable_gqa=q.shape[1] != k.shape[1])

    return d.function(f"sdpa, mask: {name}", function, q, key, v)


def _eager(d: Blocks, q: int, key: int, v: int) -> int | None:
    if d.chance(0.1):
        scores = d.function("scores by einsum", lambda q, k: torch.einsum("bhtd,bhsd->bhts", q, k), q, key)
    else:
        scores = d.function("scores", lambda q, k: q @ k.mT / q.shape[-1] ** 0.5, q, key)
    if scores is None:
        return None
    like = [j for j, x in enumerate(d.values) if j != scores and x.shape == d.values[scores].shape and x.ndim == 4]
    if like and d.chance(0.15):
        scores = d.either(d.function("sum of scores", lambda a, b: a + b, scores, d.random.choice(like)), scores)
    for name in (d.name(pieces.USUAL_MASKS), d.name(pieces.MASKS) if d.chance(0.35) else ""):
        if name:
            scores = d.either(d.add(Function(f"mask: {name}", pieces.MASKS[name], d.parameter(3)), scores), scores)
    name = "softmax" if d.chance(0.6) else d.name(pieces.WEIGHTS)
    if float(d.values[scores].abs().max()) > 100:  # filled scores: nothing else makes sense of them
        name = name if name.startswith("softmax") else "softmax"
    weights = d.function(name, pieces.WEIGHTS[name], scores)
    if weights is None:
        return None
    weights = d.either(d.add(nn.Dropout(0.2), weights), weights) if d.chance(0.15) else weights
    weights = d.either(change(d, weights), weights) if d.chance(0.1) else weights
    name = d.name(["w @ v"] * 5 + list(pieces.AVERAGES))
    return d.function(name, pieces.AVERAGES[name], weights, v)


def _back(d: Blocks, k: int, stream: int) -> int | None:
    """The output map, gates, layer scale, dropout, the residual sum."""
    n = d.values[stream].shape[-1]
    if d.chance(0.1):
        gate = d.add(nn.Linear(n, d.values[k].shape[-1], bias=d.chance(0.5)), stream)
        k = k if gate is None else d.either(d.function("sigmoid(g)·x", lambda x, g: x * g.sigmoid(), k, gate), k)
    out: int | None = d.add(linear(d, d.values[k].shape[-1], n), k)
    if out is None:
        return None
    if d.chance(0.1):
        out = d.either(d.add(Function("layer scale", lambda x, p: x * p, d.parameter(n)), out), out)
    out = d.either(d.add(nn.Dropout(0.2), out), out) if d.chance(0.15) else out
    alike = d.values[out].shape == d.values[stream].shape
    return d.function("add", lambda a, b: a + b, stream, out) if alike and d.chance(0.7) else out


def feedforward(d: Blocks, k: int) -> int | None:
    if d.values[k].ndim != 3:
        return None
    n, inner = d.values[k].shape[-1], d.size(2, 5)
    start = d.either(norm(d, k), k) if d.chance(0.6) else k
    up = d.add(linear(d, n, inner), start)
    if up is not None and d.chance(0.4):
        gate = d.add(linear(d, n, inner), start)
        act = d.random.choice([nn.SiLU(), nn.GELU(), nn.ReLU(), nn.Identity()])
        up = None if gate is None else d.function(f"{act}(g)·u", lambda g, u: act(g) * u, gate, up)
    elif up is not None:
        up = d.add(d.random.choice([nn.ReLU(), nn.GELU(), nn.Tanh(), nn.LeakyReLU(), nn.Identity()]), up)
    return None if up is None else _back(d, up, k)


def read_between(d: Blocks, k: int) -> object:
    """A probe, a small change or a norm of any value so far, or that value itself: returned besides the last."""
    j = d.random.randrange(len(d.values))
    if not d.values[j].is_floating_point():
        return None
    width = d.values[j].shape[-1]
    kind = d.one(0, 0, 0, 1, 2, 3)
    made = (change, norm)[kind](d, j) if kind < 2 else d.add(nn.Linear(width, 3), j) if kind == 2 else j
    d.extra.append(d.either(made, j))
    return made


# ---- the network -----------------------------------------------------------------------------------------------------
def random_attention(random: Random) -> tuple[Program, tuple[Tensor, ...], tuple[Tensor, ...] | None]:
    """Draw a network, example inputs, and longer ones (``None`` if it is made for one length).

    Args:
        random: source of all choices; a seeded one gives the same network again.
    """
    with torch.random.fork_rng():
        torch.manual_seed(random.randrange(2**31))
        while True:
            d = Blocks(random)
            ids, width = d.chance(0.4), d.one(2, 3, 4, 4, 6)
            inputs, longer = (
                torch.arange(n * b).reshape(b, n) % 7 if ids else torch.randn(b, n, width)
                for b, n in ((3, LENGTH), (2, LONGER))
            )
            d.values.append(inputs)
            d.program.inputs = 1
            table = nn.Embedding(7, width)
            k = d.either(d.add(table if ids else linear(d, width, width), 0), 0)
            k = d.either(positions(d, k), k) if d.chance(0.5) else k
            wild = d.chance(0.35)  # other instructions, which may be made for one length
            for _ in range(random.randint(1, 4)):
                made = _instruction(d, k, wild)
                if isinstance(made, int) and d.values[made].ndim == 3 and d.values[made].shape[1] == LENGTH:
                    k = made
            _head(d, k, table if ids else None)
            if runs(d.program, [inputs]):
                return d.program, (inputs,), (longer,) if not wild and runs(d.program, [longer]) else None


def _instruction(d: Blocks, k: int, wild: bool) -> object:
    if wild and d.chance(0.4):
        _, instruction = d.random.choice(INSTRUCTIONS)
        return instruction(d, d.register())
    safe = d.random.choices([attention, feedforward, read_between, norm], [6, 3, 2, 1])[0]
    return safe(d, k)


def _head(d: Blocks, k: int, table: nn.Embedding | None) -> None:
    """A norm, a mean over positions, a head that is tied at times, frozen parameters."""
    k = d.either(norm(d, k), k) if d.chance(0.5) else k
    if d.chance(0.3):
        pools = {
            "mean": lambda x: x.mean(1),
            "sum": lambda x: x.sum(1),
            "last": lambda x: x[:, -1],
            "max": lambda x: x.amax(1),
        }
        name = d.name(pools)
        k = d.either(d.function(name, pools[name], k), k)
    n = d.values[k].shape[-1]
    if table is not None and n == table.embedding_dim and d.chance(0.5):
        k = d.either(d.add(Borrowed("x @ tied Eᵀ", lambda x, e: x @ e.t(), table, "weight"), k), k)
    elif d.chance(0.8):
        k = d.either(d.add(nn.Linear(n, d.size(2, 4), bias=d.chance(0.5)), k), k)
    d.program.outputs = tuple(dict.fromkeys([k, *d.extra]))
    for parameter in d.program.parameters():
        if d.chance(0.03):
            parameter.requires_grad_(False)
    d.program.train()
