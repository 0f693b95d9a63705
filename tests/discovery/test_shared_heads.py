"""Attentions that share projections: their heads change places together, or not at all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.discovery.architectures import Net
from tests.discovery.attention_parts import ending, merge, sdpa, slopes, sound, split, x

X, LONG = (x(5),), (x(9),)


def two(first, second, change=sdpa):
    """Two attentions, by the names of what they read; the second may be another kind."""

    def forward(s, x):
        parts = {name: split(getattr(s, name)(x), 2) for name in {*first, *second}}
        one, other = ([parts[name] for name in names] for names in (first, second))
        return s.o(merge(sdpa(*one))) + s.p(merge(change(*other)))

    linears = {name: nn.Linear(6, 8) for name in {*first, *second}}
    return sound(Net(forward, **linears, o=nn.Linear(8, 6), p=nn.Linear(8, 6)), X, LONG)


@pytest.mark.parametrize("second", ["qkw", "abv", "akv", "abk"])
def test_one_exchange_for_both(second):
    (heads,) = ending(two("qkv", second), "heads")
    assert {f"{name}.weight" for name in {*"qkv", *second, *"op"}} == set(heads.parameters) - {
        f"{name}.bias" for name in {*"qkv", *second}
    }


@pytest.mark.parametrize("second", ["abv", "qkw"])
def test_what_tells_the_heads_apart_in_one_counts_for_both(second):
    def biased(q, k, v):
        slope = torch.tensor([0.5, 2.0])[:, None, None] * slopes(q.shape[-2])
        return sdpa(q, k, v, attn_mask=slope.to(q))

    assert not ending(two("qkv", second, biased), "heads")


def test_heads_of_one_are_rolled_before_they_meet_the_other():
    """Head 0 of one attention shares its values with head 1 of the other: both pairs, or none, change places."""
    gauge = two("qkv", "abv", lambda q, k, v: sdpa(q, k, v.roll(1, 1)))
    assert [len(s.parameters) for s in ending(gauge, "heads")] in ([], [12])


def test_values_that_also_meet_scores_without_a_softmax():
    def linear(q, k, v):
        return (q @ k.mT * torch.tensor([1.0, 2.0])[:, None, None].to(q)) @ v

    assert not ending(two("qkv", "abv", linear), "heads")


def test_different_numbers_of_heads():
    def forward(s, x):
        q, k, v = (split(m(x), 2) for m in (s.q, s.k, s.v))
        four = [split(m(x), 4) for m in (s.q, s.k, s.v)]
        return s.o(merge(sdpa(q, k, v))) + s.p(merge(sdpa(*four)))

    parts = {name: nn.Linear(6, 8) for name in "qkv"}
    assert not ending(sound(Net(forward, **parts, o=nn.Linear(8, 6), p=nn.Linear(8, 6)), X, LONG), "heads")
