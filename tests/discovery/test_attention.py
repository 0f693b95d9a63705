"""Attention: what is found, against the nullity of the Jacobian, and what is refused."""

from __future__ import annotations

import pytest
import torch

import gaugefix
from gaugefix.groups import GeneralLinear
from gaugefix.symmetry import Exactness
from gaugefix.testing import redundancy
from tests.discovery import transformers_small as small

X = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
IDS = torch.arange(48).reshape(6, 8) % 13

WHOLE = {
    "multi-head attention": (small.SelfAttention, (X,), 80),
    "grouped queries": (small.GroupedQueries, (X,), 40),
    "cross-attention": (small.CrossAttention, (X[..., :6], X[:, :4, :5]), 80),
    "post-norm encoder": (lambda: small.encoder(norm_first=False), (X,), 276),
    "pre-norm encoder": (lambda: small.encoder(norm_first=True), (X,), 299),
    "like GPT-2": (small.Decoder, (IDS,), 405),
    "like Llama": (lambda: small.RotaryDecoder(tied=False), (IDS,), 132),
    "like Llama, tied": (lambda: small.RotaryDecoder(tied=True), (IDS,), 96),
}
"""Network, inputs, and the dimensions that there are and that are found."""


def made(make):
    torch.manual_seed(0)
    return make()


@pytest.mark.parametrize("name", WHOLE)
def test_everything_is_found(name):
    make, args, expected = WHOLE[name]
    model = made(make)
    gauge = gaugefix.discover(model, args)
    assert gauge.dimension == expected
    assert gaugefix.verify(model, gauge, args).error < 1e-12


@pytest.mark.parametrize("name", ["multi-head attention", "grouped queries", "cross-attention"])
def test_the_jacobian_has_that_nullity(name):
    make, args, expected = WHOLE[name]
    assert redundancy(made(make), args, draws=1).nullity == expected


def test_every_head_has_its_own_group_in_a_fused_projection():
    gauge = gaugefix.discover(made(small.SelfAttention), (X,))
    mixing = [s for s in gauge.symmetries if isinstance(s.group, GeneralLinear)]
    assert [s.group for s in mixing] == [GeneralLinear(4, batch=2)] * 2
    assert {leg.parameter for leg in mixing[1].legs} == {
        "attention.in_proj_weight",
        "attention.in_proj_bias",
        "attention.out_proj.weight",
    }


def test_the_key_shift_survives_attention_dropout_and_the_value_shift_does_not():
    model = made(lambda: small.SelfAttention(dropout=0.2))
    gauge = gaugefix.discover(model, (X,))
    shift = gauge["attention.in_proj_bias:shift"]
    assert (shift.exactness, shift.dimension) == (Exactness.DROPOUT_FREE, 16)
    (kept,) = (s for s in gauge.exact().symmetries if s.name.endswith("shift"))
    assert (kept.exactness, kept.dimension, kept.parameters) == (Exactness.EXACT, 8, ("attention.in_proj_bias",))
    assert gaugefix.verify(model, gauge, (X,)).error < 1e-12


def test_projection_keeps_the_function_and_reaches_the_slice():
    model = made(lambda: small.encoder(norm_first=True)).eval()
    gauge = gaugefix.discover(model, (X,))
    gaugefix.act_(model, gauge, gauge.random(0.5, seed=1))
    before = model(X)
    gaugefix.project_(model, gauge, "minimal_norm")
    assert (model(X) - before).norm() < 24 * torch.finfo(torch.float32).eps * before.norm()
    assert gaugefix.drift(model, gauge, "minimal_norm").total < 1e-2


def test_tied_embeddings_stay_tied():
    model = made(lambda: small.RotaryDecoder(tied=True)).eval()
    gauge = gaugefix.discover(model, (IDS,))
    gaugefix.project_(model, gauge, "minimal_norm")
    assert model.head.weight is model.tokens.weight
