"""Rotary positions: planes in every layout, and none where something else happens.

Every symmetry is proved on the example and on longer inputs.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gaugefix.testing import redundancy
from tests.discovery.architectures import Net, parameter
from tests.discovery.attention_parts import (
    EPS,
    Rotary,
    angles,
    by_halves,
    complex_numbers,
    ending,
    in_parts,
    interleaved,
    merge,
    partial,
    sdpa,
    sound,
    split,
    symbols,
    x,
)

X, LONG = (x(5),), (x(9),)
LAYOUTS = {"halves": by_halves, "interleaved": interleaved, "parts": in_parts, "complex numbers": complex_numbers}


@pytest.mark.parametrize("turn", LAYOUTS.values(), ids=LAYOUTS)
def test_planes_in_every_layout(turn):
    """2 complex numbers for each of 2 heads, GL(4) for the values of each, and their shift."""
    model = Rotary(turn)
    gauge = sound(model, X, LONG)
    assert symbols(gauge, "planes") == ["GL(1,C)^4"]
    assert gauge.dimension == redundancy(model, X, draws=1).nullity == 8 + 32 + 8


@pytest.mark.parametrize("turn", LAYOUTS.values(), ids=LAYOUTS)
def test_grouped_queries_share_the_planes_of_their_keys(turn):
    gauge = sound(Rotary(turn, groups=1), X, LONG)
    assert symbols(gauge, "planes") == ["GL(1,C)^2"]
    assert gauge.dimension == 4 + 16 + 4


def test_keys_repeated_by_hand_share_the_planes_of_their_keys():
    def forward(s, x):
        q, k, v = split(s.q(x), 2), split(s.k(x), 1), split(s.v(x), 1)
        k, v = (t[:, :, None].expand(-1, 1, 2, -1, -1).reshape(t.shape[0], 2, -1, 4) for t in (k, v))
        return s.out(merge(sdpa(by_halves(q), by_halves(k), v)))

    gauge = sound(Net(forward, q=nn.Linear(6, 8), k=nn.Linear(6, 4), v=nn.Linear(6, 4), out=nn.Linear(8, 6)), X, LONG)
    assert symbols(gauge, "planes") == ["GL(1,C)^2"]


def test_a_part_of_the_channels_turns():
    """One plane and GL(2) for each head, and a shift of the two keys that do not turn."""
    model = Rotary(partial)
    gauge = sound(model, X, LONG)
    assert symbols(gauge, "planes") == ["GL(1,C)^2"]
    assert {s.name: s.dimension for s in ending(gauge, "shift")} == {"k.bias:shift": 4, "v.bias:shift": 8}
    assert gauge.dimension == redundancy(model, X, draws=1).nullity == 4 + 8 + 32 + 4 + 8


def test_positions_before_the_heads_are_laid_out():
    """(batch, positions, heads, channels): angles along another axis, in one projection for all three."""

    def forward(s, x):
        q, k, v = s.qkv(x).unflatten(-1, (3, 2, 4)).unbind(2)
        q, k = (by_halves(t, angles(x, 2)[:, None]).transpose(1, 2) for t in (q, k))
        return s.out(merge(sdpa(q, k, v.transpose(1, 2))))

    gauge = sound(Net(forward, qkv=nn.Linear(6, 24), out=nn.Linear(8, 6)), X, LONG)
    assert symbols(gauge, "planes") == ["GL(1,C)^4"]
    assert gauge.dimension == 48


def test_as_many_positions_as_heads():
    """The transposed value has the shape of the one before: no region may begin there."""
    gauge = sound(Rotary(by_halves), (x(2),), LONG)
    assert gauge.dimension == 48


class Frequencies(nn.Module):
    """Frequencies in a buffer, which training might change."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("inverse", 1 / 10.0 ** torch.arange(2))

    def forward(self, x: Tensor) -> Tensor:
        return by_halves(x, torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * self.inverse.to(x.dtype))


class Table(nn.Module):
    """Sines and cosines of more positions than the example has, in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        a = torch.arange(16)[:, None] / 10.0 ** torch.arange(2)
        self.register_buffer("table", torch.cat([a.sin(), a.cos()], 1))

    def forward(self, x: Tensor) -> Tensor:
        sin, cos = (torch.cat([t, t], -1) for t in self.table[: x.shape[-2]].to(x.dtype).chunk(2, -1))
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat([-second, first], -1) * sin


@pytest.mark.parametrize("turn", [Frequencies, Table])
def test_buffers(turn):
    model = Rotary(turn(), bias=False)
    model.register_module("holder", model.turn[0])
    assert symbols(sound(model, X, LONG), "planes") == ["GL(1,C)^4"]


def test_whole_tables_in_a_buffer_could_hold_anything():
    """A buffer of cosines for all channels may differ between the channels of a pair: one scale a pair is left."""

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            a = torch.arange(16)[:, None] / 10.0 ** torch.arange(2)
            self.register_buffer("cos", torch.cat([a, a], -1).cos())
            self.register_buffer("sin", torch.cat([a, a], -1).sin())

        def forward(self, x: Tensor) -> Tensor:
            n, (first, second) = x.shape[-2], x.chunk(2, -1)
            return x * self.cos[:n].to(x.dtype) + torch.cat([-second, first], -1) * self.sin[:n].to(x.dtype)

    model = Rotary(Whole())
    model.register_module("holder", model.turn[0])
    gauge = sound(model, X, LONG)
    assert not ending(gauge, "planes")
    assert [s.group.symbol for s in ending(gauge, "scale")] == ["R*^4"]


def test_positions_that_are_given():
    """Data may be any positions; one scale a pair is left."""

    def forward(s, x, positions):
        a = (positions[..., None] / 10.0 ** torch.arange(2, dtype=x.dtype))[:, None]
        q, k, v = (split(m(x), 2) for m in (s.q, s.k, s.v))
        return s.out(merge(sdpa(by_halves(q, a), by_halves(k, a), v)))

    def positions(n: int) -> Tensor:
        return torch.arange(n).expand(3, n)

    model = Net(forward, q=nn.Linear(6, 8), k=nn.Linear(6, 8), v=nn.Linear(6, 8), out=nn.Linear(8, 6))
    gauge = sound(model, (*X, positions(5)), (*LONG, positions(9)))
    assert symbols(gauge, "scale") == ["R*^4"]
    assert gauge.dimension == 4 + 32 + 8


@pytest.mark.parametrize("turn", LAYOUTS.values(), ids=LAYOUTS)
def test_an_example_of_one_position_has_no_angle_to_go_by(turn):
    """At position 0 all rotations are the identity, which would leave GL(2)."""
    gauge = sound(Rotary(turn), (x(1),), X, LONG)
    assert not symbols(gauge, "planes")
    assert not any(s.group.symbol.startswith("GL") for s in gauge.applied if "q.weight" in s.parameters)


def test_an_example_of_one_position_says_nothing_about_what_depends_on_positions():
    def forward(s, x):
        return s.b(s.a(x) * 0.9 ** torch.arange(x.shape[1], dtype=x.dtype)[:, None])

    gauge = sound(Net(forward, a=nn.Linear(6, 4), b=nn.Linear(4, 6)), (x(1),), LONG)
    assert symbols(gauge, "mixing") == ["GL(4)"]
    assert not ending(gauge, "shift")


def frequencies_differ(x: Tensor) -> Tensor:
    """The two channels of a pair turn by different angles."""
    a = angles(x, x.shape[-1])
    first, second = x.chunk(2, -1)
    return x * a.cos() + torch.cat([-second, first], -1) * a.sin()


def wrong_sign(x: Tensor) -> Tensor:
    a = torch.cat([angles(x, 2)] * 2, -1)
    first, second = x.chunk(2, -1)
    return x * a.cos() + torch.cat([second, first], -1) * a.sin()


def mirrored(x: Tensor) -> Tensor:
    a = angles(x, 2)
    first, second = x.chunk(2, -1)
    return torch.cat([first * a.cos() + second * a.sin(), first * a.sin() - second * a.cos()], -1)


def three_meet(x: Tensor) -> Tensor:
    return by_halves(x) + 0.1 * x.roll(1, -1)


@pytest.mark.parametrize("turn", [frequencies_differ, wrong_sign, mirrored, three_meet])
def test_what_is_no_rotation_has_no_planes(turn):
    gauge = sound(Rotary(turn), X, LONG)
    assert not ending(gauge, "planes")


CHANGES = [lambda x: 2 * x, lambda x: -x, by_halves, lambda x: x + 0.1 * x.flip(-2)]


@pytest.mark.parametrize("change", CHANGES, ids=["factor", "sign", "another turn", "other positions added"])
def test_what_commutes_may_follow(change):
    assert symbols(sound(Rotary(lambda x: change(by_halves(x))), X, LONG), "planes") == ["GL(1,C)^4"]


def test_gains_of_normalized_queries_and_keys_scale_against_each_other():
    """One number for each plane, the same in all heads."""

    def forward(s, x):
        q, k, v = (split(m(x), 2) for m in (s.q, s.k, s.v))
        q, k = F.rms_norm(q, (4,), s.g, EPS), F.rms_norm(k, (4,), s.h, EPS)
        return s.out(merge(sdpa(by_halves(q), by_halves(k), v)))

    linears = {name: nn.Linear(6, 8) for name in "qkv"}
    model = Net(forward, **linears, out=nn.Linear(8, 6), g=parameter(4), h=parameter(4))
    gauge = sound(model, X, LONG)
    assert {s.name: s.group.symbol for s in ending(gauge, "scale")} == {"g:scale": "R*^2"}
    assert gauge.dimension == redundancy(model, X, draws=1).nullity == 2 + 32 + 8


def test_a_norm_that_is_written_out_may_follow():
    """In float32, of what turned: the casts belong to the norm."""

    def turn(x: Tensor) -> Tensor:
        x = by_halves(x)
        return x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True).to(x.dtype) + EPS)

    gauge = sound(Rotary(turn), X, LONG)
    assert not ending(gauge, "planes")
    assert symbols(gauge, "sign") == ["Z2^4"]  # one of each plane


@pytest.mark.parametrize("last", [(1.0, 1.0, -1.0, -1.0), (2.0, 1.0, 1.0, 1.0)])
def test_a_sign_or_a_factor_on_one_channel_of_a_pair_breaks_the_plane(last):
    """The angle of what is behind it would have to turn the other way."""
    gauge = sound(Rotary(by_halves, keys=lambda x: by_halves(x) * torch.tensor(last, dtype=x.dtype)), X, LONG)
    assert not ending(gauge, "planes")


@pytest.mark.parametrize("which", ["queries", "keys"])
def test_one_side_turns_alone(which):
    turns = {"queries": (by_halves, lambda x: x), "keys": (lambda x: x, by_halves)}[which]
    gauge = sound(Rotary(turns[0], keys=turns[1]), X, LONG)
    assert symbols(gauge, "planes") == ["GL(1,C)^4"]
    # Keys that do not turn may shift: a constant that queries see alike.
    assert [s.name for s in ending(gauge, "shift")] == ["k.bias:shift"] * (which == "queries") + ["v.bias:shift"]


def test_two_kinds_of_pairs_leave_a_scale():
    """Queries turn by halves, keys by neighbours: a channel belongs to two planes."""
    gauge = sound(Rotary(by_halves, keys=interleaved), X, LONG)
    assert not ending(gauge, "planes")
    assert symbols(gauge, "scale") == ["R*^2"]


def test_heads_that_turn_by_different_angles_keep_their_places():
    def by_head(x: Tensor) -> Tensor:
        return by_halves(x, angles(x, 2) * torch.tensor([1.0, 0.7], dtype=x.dtype)[:, None, None])

    gauge = sound(Rotary(by_head), X, LONG)
    assert symbols(gauge, "planes") == ["GL(1,C)^4"]
    assert not ending(gauge, "heads")
    assert symbols(sound(Rotary(by_halves), X, LONG), "heads") == ["S_2"]


def test_positions_that_are_mixed_before_they_turn_keep_their_places():
    """A map over positions: its outputs turn by different angles, so they do not mix."""

    def forward(s, x):
        return s.b(by_halves(s.a(x.transpose(1, 2)).transpose(1, 2)).transpose(1, 2))

    gauge = sound(Net(forward, a=nn.Linear(5, 4, False), b=nn.Linear(4, 3, False)), (x(5, width=4),))
    assert symbols(gauge, "scale") == ["R*^4"]
    assert not ending(gauge, "mixing")


def test_channels_that_turn_into_zeros_are_fixed():
    """Queries of two channels and two zeros: what the zeros turn into meets keys that would seem to meet nothing."""

    def forward(s, x):
        q, k, v = by_halves(F.pad(s.q(x), (0, 2))), s.k(x), s.v(x)
        return s.out(sdpa(q[:, None], k[:, None], v[:, None])[:, 0])

    model = Net(forward, q=nn.Linear(6, 2), k=nn.Linear(6, 4), v=nn.Linear(6, 4), out=nn.Linear(4, 6))
    gauge = sound(model, X, LONG)
    assert not any("q.weight" in s.parameters for s in gauge.applied)


def test_channels_that_are_scaled_by_a_difference_do_not_pass():
    """Their factor 1 + a − b is 1 by chance only where a = b."""

    def turn(x: Tensor) -> Tensor:
        a = angles(x, 2)
        rest = x[..., 2:] + x[..., 2:] * a - x[..., 2:] * (2 * a + 0.1)
        return torch.cat([by_halves(x[..., :2]), rest], -1)

    gauge = sound(Rotary(turn), X, LONG)
    assert symbols(gauge, "planes") == ["GL(1,C)^2"]
    assert symbols(gauge, "scale") == ["R*^4"]
    assert [s.name for s in ending(gauge, "shift")] == ["v.bias:shift"]


class TestReadElsewhere:
    """Queries go to the attention, and to somebody else."""

    def gauge(self, read):
        def forward(s, x):
            q, k, v = (split(m(x), 2) for m in (s.q, s.k, s.v))
            return s.out(merge(sdpa(by_halves(q), by_halves(k), v))), read(s, q)

        parts = {name: nn.Linear(6, 8) for name in "qkv"}
        return sound(Net(forward, **parts, out=nn.Linear(8, 6), probe=nn.Linear(4, 3), gain=parameter(4)), X, LONG)

    def test_a_linear_probe_of_each_head_moves_along(self):
        gauge = self.gauge(lambda s, q: s.probe(q))
        (planes,) = ending(gauge, "planes")
        assert planes.group.symbol == "GL(1,C)^2"  # one probe for both heads: they move alike
        assert "probe.weight" in planes.parameters

    @pytest.mark.parametrize("function", [torch.tanh, F.gelu, F.relu, lambda q: q])
    def test_nothing_turns_what_is_read_channel_by_channel(self, function):
        gauge = self.gauge(lambda s, q: function(q))
        assert not ending(gauge, "planes")

    def test_a_gain_leaves_scales(self):
        gauge = self.gauge(lambda s, q: s.probe(q * s.gain))
        assert not ending(gauge, "planes")
        assert not any(s.group.symbol.startswith("GL(1,C)") for s in gauge.applied)
