"""Attention that a model writes out itself: which shifts of keys and values a softmax hides, and which are seen.

Every symmetry is proved on the example and on longer inputs.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaugefix.symmetry import Exactness
from tests.discovery.architectures import Net, parameter
from tests.discovery.attention_parts import ending, merge, sdpa, slopes, sound, split, x

X, LONG = (x(5),), (x(9),)


def attention(scores: Any, weights: Any = None, **more: nn.Module | nn.Parameter) -> Net:
    """Attention from matmul and softmax, with a change of scores, and another way from scores to weights."""

    def forward(s: Any, x: Tensor) -> Any:
        q, k, v = (split(m(x), 2) for m in (s.q, s.k, s.v))
        a = scores(s, q @ k.mT / 2)
        w = a.softmax(-1) if weights is None else weights(s, a)
        if isinstance(w, tuple):
            return s.out(merge(w[0] @ v)), *w[1:]
        return s.out(merge(w @ v))

    linears = {name: nn.Linear(6, 8) for name in "qkv"}
    return Net(forward, **{**linears, "out": nn.Linear(8, 6), **more})


def shifts(model: nn.Module, *others: tuple[Tensor, ...]) -> set[str]:
    """Which of keys and values may shift."""
    gauge = sound(model, X, *(others or (LONG,)))
    return {name[0] for s in ending(gauge, "shift") for name in s.parameters if name in ("k.bias", "v.bias")}


def triangle(a: Tensor) -> Tensor:
    return torch.ones(a.shape[-2:], dtype=torch.bool).triu(1)


UNSEEN: dict[str, tuple[Any, dict[str, Any]]] = {
    "nothing": (lambda s, a: a, {}),
    "a mask that is added": (lambda s, a: a + torch.zeros(a.shape[-2:]).masked_fill(triangle(a), -torch.inf).to(a), {}),
    "a low mask that is added": (lambda s, a: a + torch.full(a.shape[-2:], -1e9).triu(1).to(a), {}),
    "a moderate mask that is added": (lambda s, a: a + torch.full(a.shape[-2:], -2.0).triu(1).to(a), {}),
    "a mask that is filled in": (lambda s, a: a.masked_fill(triangle(a), -torch.inf), {}),
    "a low mask that is filled in": (lambda s, a: a.masked_fill(triangle(a), torch.finfo(torch.float32).min), {}),
    "a choice": (lambda s, a: torch.where(triangle(a), -torch.inf, a), {}),
    "a relative bias": (lambda s, a: a + s.bias[(slopes(a.shape[-1]).long() % 5)], {"bias": parameter(5)}),
}
SEEN: dict[str, tuple[Any, dict[str, Any]]] = {
    "a moderate mask that is filled in": (lambda s, a: a.masked_fill(triangle(a), -2.0), {}),
    "a moderate choice": (lambda s, a: torch.where(triangle(a), -2.0, a), {}),
    "a mask that depends on scores": (lambda s, a: a.masked_fill(a < -0.1, -torch.inf), {}),
    "a soft cap": (lambda s, a: 3 * torch.tanh(a / 3), {}),
    "a ReLU": (lambda s, a: F.relu(a), {}),
    "squares": (lambda s, a: a.square(), {}),
    "a product with scores": (lambda s, a: a * a.mT, {}),
    "a transposed sum": (lambda s, a: a + a.mT, {}),
    "a factor of positions": (lambda s, a: a * slopes(a.shape[-1]).to(a), {}),
    "sums over keys": (lambda s, a: a + a.cumsum(-1), {}),
    "a limit": (lambda s, a: a.clamp(max=0.3), {}),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_a_softmax_does_not_see_a_shift_of_the_keys(name):
    change, parts = UNSEEN[name]
    assert shifts(attention(change, **parts)) == {"k", "v"}


@pytest.mark.parametrize("name", SEEN)
def test_what_sees_a_shift_of_the_keys(name):
    change, parts = SEEN[name]
    assert shifts(attention(change, **parts)) == {"v"}


def test_a_learned_temperature_is_a_factor_of_every_row():
    """q·c times the temperature is constant along the row; it is left out all the same where that is not seen."""
    assert shifts(attention(lambda s, a: a * s.temperature, temperature=parameter(1))) <= {"k", "v"}
    assert shifts(attention(lambda s, a: a * s.temperature.exp(), temperature=parameter(2, 1, 1))) <= {"k", "v"}


WAYS: dict[str, tuple[Any, set[str]]] = {
    "weights that are returned": (lambda s, a: (a.softmax(-1), a.softmax(-1)), {"k", "v"}),
    "scores that are returned": (lambda s, a: (a.softmax(-1), a), {"v"}),
    "a sum of squares of scores": (lambda s, a: (a.softmax(-1), a.square().sum(-1)), {"v"}),
    "a softmax over queries": (lambda s, a: a.softmax(-2), set()),
    "a softmax over heads": (lambda s, a: a.softmax(1), set()),
    "a sigmoid": (lambda s, a: a.sigmoid(), set()),
    "no softmax": (lambda s, a: a, set()),
    "a softmax that is scaled": (lambda s, a: 0.5 * a.softmax(-1), {"k"}),
    "a softmax and a bit": (lambda s, a: a.softmax(-1) + 0.01, {"k"}),
    "a softmax with gaps": (lambda s, a: a.softmax(-1).masked_fill(triangle(a), 0.0), {"k"}),
    "a softmax over more": (lambda s, a: F.pad(a, (0, 1)).softmax(-1)[..., :-1], set()),
    "a softmax of a softmax": (lambda s, a: a.softmax(-1).softmax(-1), {"k", "v"}),
    "weights of two softmaxes": (lambda s, a: a.softmax(-1) - 0.5 * (2 * a).softmax(-1), {"k"}),
    "positions in another order": (lambda s, a: a.softmax(-1).flip(-1), {"k"}),
    "queries in another order": (lambda s, a: a.softmax(-1).roll(1, -2), {"k", "v"}),
}


@pytest.mark.parametrize("name", WAYS)
def test_from_scores_to_weights(name):
    way, expected = WAYS[name]
    assert shifts(attention(lambda s, a: a, way)) == expected


class Dropped(nn.Module):
    """Dropout of attention weights, of scores, or of what comes out."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(6, 6) for _ in range(4))
        self.scores, self.weights, self.rest = (nn.Dropout(0.3 * (where == w)) for w in ("scores", "weights", "rest"))

    def forward(self, x: Tensor) -> Tensor:
        weights = self.weights(self.scores(self.q(x) @ self.k(x).mT).softmax(-1))
        return self.out(self.rest(weights @ self.v(x)))


@pytest.mark.parametrize(
    ("where", "keys", "values"),
    [
        ("scores", Exactness.DROPOUT_FREE, Exactness.EXACT),
        ("weights", Exactness.EXACT, Exactness.DROPOUT_FREE),
        ("rest", Exactness.EXACT, Exactness.DROPOUT_FREE),
    ],
)
def test_dropout(where, keys, values):
    gauge = sound(Dropped(where), X, LONG)
    of = {name: s.exactness for s in ending(gauge, "shift") for name in s.parameters}
    assert (of["k.bias"], of["v.bias"]) == (keys, values)


class TestEinsum:
    @pytest.mark.parametrize(
        ("equation", "expected"),
        [
            ("bhts,bhsd->bhtd", {"k", "v"}),
            ("bhts,bhsd->bthd", {"k", "v"}),
            ("bhts,bhsd->btdh", {"k", "v"}),
            ("bhts,bhsd->bhd", {"k"}),  # as many times as there are queries
            ("bhts,bhsd->btd", {"k"}),  # heads are summed
            ("bhts,bhtd->bhsd", {"k"}),  # the rows that sum to one are not summed over
        ],
    )
    def test_products_with_values(self, equation, expected):
        def forward(s, x):
            q, k, v = (split(m(x), 2) for m in (s.q, s.k, s.v))
            y = torch.einsum(equation, (q @ k.mT).softmax(-1), v)
            return s.out(y.movedim(equation.partition("->")[2].index("d"), -1))

        linears = {name: nn.Linear(6, 8) for name in "qkv"}
        assert shifts(Net(forward, **linears, out=nn.Linear(4, 3))) == expected


PRODUCTS: dict[str, tuple[Any, set[str]]] = {
    "queries that are keys": (lambda a, b: sdpa(a, a, b), {"b"}),
    "keys that are values": (lambda a, b: sdpa(a, b, b), {"b"}),
    "queries that are values": (lambda a, b: sdpa(a, b, a), {"b"}),
    "each meets the other": (lambda a, b: sdpa(a, b, a) + sdpa(b, a, b), set()),
    "written out": (lambda a, b: (a @ a.mT).softmax(-1) @ b, {"b"}),
    "by einsum": (lambda a, b: torch.einsum("bhtd,bhsd->bhts", a, a).softmax(-1) @ b, {"b"}),
    "a matrix times itself": (lambda a, b: ((c := a[..., :4, :]) @ c).softmax(-1) @ b[..., :4, :], {"b"}),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_value_that_meets_itself(name):
    """It may shift as a key, but not as a query."""
    product, expected = PRODUCTS[name]
    net = Net(
        lambda s, x: s.out(merge(product(split(s.a(x), 2), split(s.b(x), 2)))),
        **{part: nn.Linear(6, 8) for part in "ab"},
        out=nn.Linear(8, 6),
    )
    gauge = sound(net, X, LONG)
    assert {n[0] for s in ending(gauge, "shift") for n in s.parameters if n in ("a.bias", "b.bias")} == expected


def test_two_sums_of_scores_shift_apart():
    """Content and position have keys of their own, of different size."""

    def forward(s, x):
        q, k, v, r, p = (split(m(x), 2) for m in (s.q, s.k, s.v, s.r, s.p))
        return s.out(merge((q @ k.mT + r @ p.mT).softmax(-1) @ v))

    sizes = {"q": 8, "k": 8, "v": 8, "r": 4, "p": 4}
    gauge = sound(Net(forward, **{n: nn.Linear(6, size) for n, size in sizes.items()}, out=nn.Linear(8, 6)), X, LONG)
    assert {s.name: s.dimension for s in ending(gauge, "shift")} == {
        "k.bias:shift": 8,
        "p.bias:shift": 4,
        "v.bias:shift": 8,
    }


def test_two_sums_of_scores_that_are_seen_do_not_shift_against_each_other():
    def forward(s, x):
        q, k, r, p = (split(m(x), 2) for m in (s.q, s.k, s.r, s.p))
        return torch.tanh(q @ k.mT + r @ p.mT)

    gauge = sound(Net(forward, **{name: nn.Linear(6, 8) for name in "qkrp"}), X, LONG)
    assert not ending(gauge, "shift")
