"""Exchanges of whole heads: found where nothing tells the heads apart, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaugefix.symmetry import Exactness
from tests.discovery.architectures import Net, parameter
from tests.discovery.attention_parts import EPS, eager, ending, merge, sdpa, slopes, sound, split, symbols, x

X, LONG = (x(5),), (x(9),)
ATTENTIONS = {"sdpa": sdpa, "eager": eager}


def net(function: Any, groups: int = 2, **more: nn.Module | nn.Parameter) -> Net:
    """Projections q, k, v of heads of 4 channels, and what becomes of them."""

    def forward(s: Any, x: Tensor, *rest: Tensor) -> Any:
        q, k, v = split(s.q(x), 2), split(s.k(x), groups), split(s.v(x), groups)
        return function(s, q, k, v, *rest)

    width = 4 * groups
    parts = {"q": nn.Linear(6, 8), "k": nn.Linear(6, width), "v": nn.Linear(6, width), "out": nn.Linear(8, 6)}
    return Net(forward, **{**parts, **more})


def plain(attention: Any) -> Any:
    return lambda s, q, k, v: s.out(merge(attention(q, k, v)))


def scores(change: Any) -> Any:
    """Attention written out, with a change of the scores."""

    def function(s: Any, q: Tensor, k: Tensor, v: Tensor, *rest: Tensor) -> Tensor:
        return s.out(merge(change(s, q @ k.mT / 2, *rest).softmax(-1) @ v))

    return function


class TestFound:
    @pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS)
    def test_alike(self, attention):
        gauge = sound(net(plain(attention)), X, LONG)
        (heads,) = ending(gauge, "heads")
        assert heads.group.symbol == "S_2"
        names = {f"{part}.{kind}" for part in "qkv" for kind in ("weight", "bias")}
        assert set(heads.parameters) == {*names, "out.weight"}

    @pytest.mark.parametrize("separate", [False, True])
    def test_multi_head_attention(self, separate):
        class Attention(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.own = nn.MultiheadAttention(8, 4, kdim=6 if separate else None, batch_first=True)

            def forward(self, x: Tensor, y: Tensor) -> Tensor:
                return self.own(x, y, x if separate else y, need_weights=False)[0]

        inputs = [(x(n, 8), x(n, 6 if separate else 8)) for n in (5, 9)]
        assert symbols(sound(Attention(), *inputs), "heads") == ["S_4"]

    def test_grouped_queries_move_with_their_keys(self):
        def function(s, q, k, v):
            return s.out(merge(sdpa(q, k, v, enable_gqa=True)))

        def four(s, x):
            return function(s, split(s.q(x), 4), split(s.k(x), 2), split(s.v(x), 2))

        width = {"q": (6, 8), "k": (6, 4), "v": (6, 4), "out": (8, 6)}
        gauge = sound(Net(four, **{name: nn.Linear(*sizes) for name, sizes in width.items()}), X, LONG)
        (heads,) = ending(gauge, "heads")
        assert heads.group.symbol == "S_2"
        (queries,) = [leg.index for leg in heads.legs if leg.parameter == "q.bias"]
        assert queries.tolist() == [0] * 4 + [1] * 4

    def test_all_queries_share_one_key(self):
        """Queries of one key head could change places too, with their columns of the output: that is left out."""
        gauge = sound(net(lambda s, q, k, v: s.out(merge(sdpa(q, k, v, enable_gqa=True))), groups=1), X, LONG)
        assert not ending(gauge, "heads")

    @pytest.mark.parametrize("layout", ["heads first", "channels first", "interleaved with q, k and v"])
    def test_layouts_of_one_projection(self, layout):
        """Rows of the weight by (3, heads, channels), by (3, channels, heads), and by (heads, 3, channels)."""
        sizes = {"heads first": (3, 2, 4), "channels first": (3, 4, 2), "interleaved with q, k and v": (2, 3, 4)}
        order = {"heads first": (2, 0, 3, 1, 4), "channels first": (2, 0, 4, 1, 3)}.get(layout, (3, 0, 2, 1, 4))

        def forward(s, x):
            q, k, v = s.qkv(x).unflatten(-1, sizes[layout]).permute(order)
            return s.out(merge(sdpa(q, k, v)))

        gauge = sound(Net(forward, qkv=nn.Linear(6, 24), out=nn.Linear(8, 6)), X, LONG)
        assert symbols(gauge, "heads") == ["S_2"]
        assert gauge.dimension == 80

    def test_linear_attention(self):
        """No softmax: the heads are alike all the same."""
        assert symbols(sound(net(lambda s, q, k, v: s.out(merge(q @ k.mT @ v))), X, LONG), "heads") == ["S_2"]

    def test_weights_that_average_two_values(self):
        def function(s, q, k, v):
            weights = (q @ k.mT).softmax(-1)
            return s.out(merge(weights @ v)) + s.other(merge(weights @ torch.tanh(v)))

        assert symbols(sound(net(function, other=nn.Linear(8, 6)), X, LONG), "heads") == ["S_2"]

    def test_heads_are_exchanged_without_dropout_only(self):
        class Attention(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.own = nn.MultiheadAttention(8, 2, 0.3, batch_first=True)

            def forward(self, x: Tensor) -> Tensor:
                return self.own(x, x, x, need_weights=False)[0]

        (heads,) = ending(sound(Attention(), (x(5, 8),), (x(9, 8),)), "heads")
        assert heads.exactness is Exactness.DROPOUT_FREE


def test_dropout_of_values_leaves_scales_that_belong_to_one_symmetry():
    """Mixing and exchange of heads end with dropout; the scales that are left count once."""

    def function(s, q, k, v):
        return s.out(s.drop(merge(sdpa(q, k, v))))

    gauge = sound(net(function, drop=nn.Dropout(0.3)), X, LONG)
    assert [s.exactness for s in ending(gauge, "heads")] == [Exactness.DROPOUT_FREE]
    assert [s.exact_part for s in ending(gauge, "heads")] == [()]
    assert symbols(gauge.exact(), "scale") == ["R*^8"]


APART: dict[str, tuple[Any, dict[str, nn.Module | nn.Parameter]]] = {
    "slopes of ALiBi": (
        scores(lambda s, a: a + (torch.tensor([0.5, 0.25])[:, None, None] * slopes(a.shape[-1])).to(a)),
        {},
    ),
    "a bias of each head": (scores(lambda s, a: a + s.bias), {"bias": parameter(2, 1, 1)}),
    "a temperature of each head": (scores(lambda s, a: a * s.scale), {"scale": parameter(2, 1, 1)}),
    "constant temperatures": (scores(lambda s, a: a * torch.tensor([1.0, 0.5])[:, None, None].to(a)), {}),
    "heads that talk": (
        scores(lambda s, a: torch.einsum("bhts,hg->bgts", a, s.mix)),
        {"mix": parameter(2, 2)},
    ),
    "constants that mix heads": (
        scores(lambda s, a: torch.einsum("bhts,hg->bgts", a, torch.tensor([[1.0, 0.5], [0.0, 1.0]]).to(a))),
        {},
    ),
    "a sink of each head": (
        lambda s, q, k, v: s.out(
            merge(
                torch.cat([q @ k.mT, (q @ s.sink)], -1).softmax(-1) @ torch.cat([v, torch.zeros_like(v[:, :, :1])], 2)
            )
        ),
        {"sink": parameter(2, 4, 1)},
    ),
    "windows of each head": (
        scores(lambda s, a: a.masked_fill(slopes(a.shape[-1]) < torch.tensor([-1, -3])[:, None, None], -torch.inf)),
        {},
    ),
    "windows that are wider than the example": (
        scores(lambda s, a: a.masked_fill(slopes(a.shape[-1]) < torch.tensor([-5, -7])[:, None, None], -torch.inf)),
        {},
    ),
    "one head read twice": (lambda s, q, k, v: s.out(merge(eager(q, k, v))) + eager(q, k, v)[:, 0].mean(-1, True), {}),
    "gains of each head": (
        lambda s, q, k, v: s.out(merge(sdpa(F.rms_norm(q, (4,), None, EPS) * s.gain, k, v))),
        {"gain": parameter(2, 1, 4)},
    ),
    "norms of each head behind": (
        lambda s, q, k, v: s.out(F.group_norm(merge(sdpa(q, k, v)).mT, 2, s.gain, None, EPS).mT),
        {"gain": parameter(8)},
    ),
    "gates of each head": (lambda s, q, k, v: s.out(merge(sdpa(q, k, v) * s.gate)), {"gate": parameter(2, 1, 1)}),
    "constant gates": (
        lambda s, q, k, v: s.out(merge(sdpa(q, k, v) * torch.tensor([1.0, -1.0])[:, None, None].to(q))),
        {},
    ),
    "a head left out": (
        lambda s, q, k, v: s.out(F.pad(sdpa(q, k, v)[:, :1], (0, 0, 0, 0, 0, 1)).transpose(1, 2).flatten(2)),
        {},
    ),
    "weights that are returned": (
        lambda s, q, k, v: (s.out(merge((q @ k.mT).softmax(-1) @ v)), (q @ k.mT).softmax(-1)),
        {},
    ),
    "scores that are returned": (lambda s, q, k, v: (s.out(merge(eager(q, k, v))), q @ k.mT), {}),
    "keys that are returned": (lambda s, q, k, v: (s.out(merge(sdpa(q, k, v))), k), {}),
    "a softmax over heads": (lambda s, q, k, v: s.out(merge((q @ k.mT).softmax(1) @ v)), {}),
    "differences of heads": (
        lambda s, q, k, v: s.out(
            torch.cat([w := (q @ k.mT).softmax(-1), w[:, :1] - w[:, 1:]], 1) @ torch.cat([v, v[:, :1]], 1)
        ).sum(1),
        {"out": nn.Linear(4, 6)},
    ),
    "positions that turn one head": (
        lambda s, q, k, v: s.out(merge(sdpa(torch.cat([q[:, :1], q[:, 1:].flip(-2)], 1), k, v))),
        {},
    ),
}


@pytest.mark.parametrize("name", APART)
def test_what_tells_heads_apart_keeps_them_in_place(name):
    function, parts = APART[name]
    gauge = sound(net(function, **parts), X, LONG)
    assert not ending(gauge, "heads")


ALIKE: dict[str, tuple[Any, dict[str, nn.Module | nn.Parameter]]] = {
    "a causal mask": (scores(lambda s, a: a + torch.full(a.shape[-2:], -torch.inf).triu(1).to(a)), {}),
    "a mask that is filled in": (
        scores(lambda s, a: a.masked_fill(slopes(a.shape[-1]).triu(1) < 0, -torch.inf)),
        {},
    ),
    "a factor": (scores(lambda s, a: 0.3 * a), {}),
    "slopes that are the same": (scores(lambda s, a: a + slopes(a.shape[-1]).expand(2, -1, -1).to(a)), {}),
}


@pytest.mark.parametrize("name", ALIKE)
def test_what_is_the_same_for_all_heads_lets_them_change_places(name):
    function, parts = ALIKE[name]
    assert symbols(sound(net(function, **parts), X, LONG), "heads") == ["S_2"]


@pytest.mark.parametrize("attention", ["sdpa", "added", "filled in"])
@pytest.mark.parametrize("heads", [1, 2])
def test_a_mask_that_is_given(attention, heads):
    """One for all heads, or one for each."""

    def function(s, q, k, v, mask):
        a = q @ k.mT
        if attention == "sdpa":
            return s.out(merge(sdpa(q, k, v, attn_mask=mask)))
        filled = a + mask if attention == "added" else a.masked_fill(mask > 0, -torch.inf)
        return s.out(merge(filled.softmax(-1) @ v))

    def given(n: int) -> tuple[Tensor, Tensor]:
        return x(n), torch.randn(3, heads, n, n, generator=torch.Generator().manual_seed(n)).clamp(max=0.5)

    gauge = sound(net(function), given(5), given(9))
    assert symbols(gauge, "heads") == ["S_2"] * (heads == 1)


def test_an_example_of_one_position_tells_heads_apart_all_the_same():
    def function(s, q, k, v):
        slope = torch.tensor([0.5, 0.25])[:, None, None] * slopes(q.shape[-2])
        return s.out(merge(sdpa(q, k, v, attn_mask=slope.to(q))))

    assert not ending(sound(net(function), (x(1),), LONG), "heads")
