"""Streams that do not rotate: something tells their directions apart, or their gains do not let a rotation pass."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.discovery.architectures import Net, parameter
from tests.discovery.attention_parts import EPS, sound
from tests.discovery.streams import LONG, D, X, branch, found, layer, rms, stream

READS = {
    "an elementwise map": lambda s, h: h + torch.tanh(h),
    "a ReLU": lambda s, h: F.relu(h),
    "a gain": lambda s, h: h * s.p,
    "a product with itself": lambda s, h: h + h * h,
    "constant data": lambda s, h: h + torch.arange(D, dtype=h.dtype),
    "constant positions": lambda s, h: h + torch.arange(h.shape[1], dtype=h.dtype)[:, None].sin(),
    "constant factors": lambda s, h: h * torch.tensor([1.0, -1.0, 1.0, -1.0]).to(h),
    "an output": lambda s, h: (h, h),
    "a softmax": lambda s, h: h + h.softmax(-1),
    "half of it": lambda s, h: (h, h[..., :2].norm(dim=-1)),
    "a norm of half of it": lambda s, h: h + F.pad(F.rms_norm(h[..., :2], (2,), None, EPS), (0, 2)),
    "its channels rolled": lambda s, h: h + 0.5 * h.roll(1, -1),
    "a norm of its positions": lambda s, h: h + F.layer_norm(h.mT, (h.shape[1],)).mT,
    "a maximum over positions": lambda s, h: h + h.amax(1, keepdim=True),
}


@pytest.mark.parametrize("name", READS)
def test_streams_that_are_also_read_otherwise(name):
    gauge = sound(stream(READS[name], p=parameter(D)), X, *([LONG] if "positions" not in name else []))
    assert "O(4)" not in found(gauge)


@pytest.mark.parametrize("name", ["RMS", "layer norm"])
def test_post_norm(name):
    """The stream lies behind one gain and in front of the next."""

    def forward(s, x):
        h = s.n(s.a(x))
        return s.o(s.m(h + s.f(h)))

    make = {"RMS": rms, "layer norm": layer}[name]
    model = Net(forward, a=nn.Linear(D, D), n=make(), m=make(), f=branch(), o=nn.Linear(D, 3))
    assert not found(sound(model, X, LONG))


def test_layer_scale():
    """A learned factor for each channel of what a branch adds."""

    def forward(s, x):
        h = s.a(x)
        return s.o(s.l(h + s.p * s.f(s.n(h))))

    model = Net(forward, a=nn.Linear(D, D), n=rms(), l=rms(), f=branch(), o=nn.Linear(D, 3), p=parameter(D))
    assert not found(sound(model, X, LONG))


def test_frozen_writers():
    model = stream()
    model.a.weight.requires_grad_(False)
    assert not found(sound(model, X))


def test_a_gain_that_is_also_added_to_the_stream():
    """The rotation would move the gain that it is conjugated by."""
    model = Net(
        lambda s, x: s.o(F.rms_norm(s.a(x) + s.p, (D,), s.p, EPS)),
        a=nn.Linear(D, D),
        o=nn.Linear(D, 3),
        p=parameter(D),
    )
    assert not found(sound(model, X))


def test_a_gain_that_is_also_the_shift():
    model = Net(
        lambda s, x: s.o(F.layer_norm(s.a(x), (D,), s.p, s.p, EPS)),
        a=nn.Linear(D, D),
        o=nn.Linear(D, 3),
        p=parameter(D),
    )
    assert not found(sound(model, X))


def test_a_gain_that_is_also_a_bias_elsewhere():
    """It stays where it is, so this is no obstacle."""

    def forward(s, x):
        return s.o(F.rms_norm(s.a(x), (D,), s.p, EPS)), torch.tanh(s.b(x) + s.p)

    model = Net(forward, a=nn.Linear(D, D), b=nn.Linear(D, D), o=nn.Linear(D, 3), p=parameter(D))
    assert found(sound(model, X)) == ["O(4)"]


def test_channels_that_are_added_behind_different_gains():
    """γ R γ⁻¹ is another matrix for each half."""
    model = Net(
        lambda s, x: s.o(sum(F.rms_norm(s.a(x), (8,), s.p, EPS).chunk(2, -1))),
        a=nn.Linear(D, 8),
        o=nn.Linear(4, 3),
        p=parameter(8),
    )
    assert not found(sound(model, X))


def test_one_reader_behind_two_gains():
    model = stream()
    model.g[0].weight = model.f[0].weight
    assert not found(sound(model, X))


def test_one_map_in_front_and_behind():
    def forward(s, x):
        h = s.a(x)
        return s.o(s.l(h + s.b(s.n(s.b(h)))))

    model = Net(forward, a=nn.Linear(D, D), b=nn.Linear(D, D, False), n=rms(), l=rms(), o=nn.Linear(D, 3))
    assert not found(sound(model, X))


@pytest.mark.parametrize("where", ["nowhere", "in front", "behind"])
def test_a_map_with_a_constant_added(where):
    """W + 1 would have to turn as a whole, constant included."""

    def forward(s, x):
        first = s.p + 1.0 if where == "in front" else s.p
        last = s.q + 1.0 if where == "behind" else s.q
        return s.n(x @ first) @ last

    model = Net(forward, n=rms(), p=parameter(D, D), q=parameter(D, 3))
    assert found(sound(model, X, LONG)) == (["O(4)"] if where == "nowhere" else [])
