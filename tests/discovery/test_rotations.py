"""Rotations of residual streams: found behind norms whose gains they pass, and refused where anything tells directions.

Every symmetry is proved on a copy with random gains, where a false conjugation shows.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gaugefix
from gaugefix.errors import SymmetryError
from gaugefix.symmetry import Exactness, ResidualRotation
from gaugefix.testing import redundancy
from tests.discovery.architectures import Net, parameter
from tests.discovery.attention_parts import EPS, sound
from tests.discovery.streams import LONG, D, X, branch, found, layer, rms, rotations, stream

NORMS: dict[str, tuple[Any, str]] = {
    "RMS": (rms, "O(4)"),
    "layer norm": (layer, "O(4)_1"),
    "layer norm without a shift": (lambda: layer(bias=False), "O(4)_1"),
    "layer norm without a gain": (lambda: layer(elementwise_affine=False), "O(4)_1"),
}


class TestFound:
    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize("name", NORMS)
    def test_in_front_of_every_norm(self, name, bias):
        make, symbol = NORMS[name]
        assert found(sound(stream(norm=make, bias=bias), X, LONG)) == [symbol]

    def test_norms_without_gains_leave_a_plain_rotation(self):
        gauge = sound(stream(norm=lambda: rms(gain=False)), X, LONG)
        (rotation,) = (s for s in gauge.applied if s.group.symbol == "O(4)")
        assert not rotation.conditional

    @pytest.mark.parametrize("name", ["RMS", "layer norm without a shift"])
    def test_nothing_else_is_missing(self, name):
        model = stream(norm=NORMS[name][0])
        gauge = gaugefix.discover(model, X)
        assert gauge.dimension == redundancy(model, X, draws=1).nullity

    def test_readers_are_conjugated_by_their_gains(self):
        (rotation,) = rotations(sound(stream(bias=True), X))
        roles = {part.parameter: part.role for part in rotation.parts}
        assert {name: role.partition("by ")[2] for name, role in roles.items() if "conjugated" in role} == {
            "f.0.weight": "n.weight",
            "g.0.weight": "m.weight",
            "o.weight": "l.weight",
        }
        assert {name for name, role in roles.items() if "conjugated" not in role} == {
            f"{name}.{kind}" for name in ("a", "f.2", "g.2") for kind in ("weight", "bias")
        }
        assert rotation.conditional

    def test_shifts_of_norms_move_behind_their_gains(self):
        (rotation,) = rotations(sound(stream(norm=layer, bias=True), X))
        assert {"n.bias", "m.bias", "l.bias"} <= set(rotation.parameters)
        assert not {"n.weight", "m.weight", "l.weight"} & set(rotation.parameters)

    def test_gains_that_are_not_trained_conjugate_too(self):
        model = stream()
        model.n.weight.requires_grad_(False)
        assert found(sound(model, X, LONG)) == ["O(4)"]

    def test_a_norm_that_is_used_twice(self):
        model = stream()
        model.m = model.n
        (rotation,) = rotations(sound(model, X, LONG))
        assert rotation.group.symbol == "O(4)"

    def test_two_streams_with_the_same_gain(self):
        """Each rotates by itself: the gain stays."""

        def forward(s, x):
            return s.o(s.n(s.a(x))), s.p(s.n(s.b(x)))

        model = Net(forward, a=nn.Linear(D, D), b=nn.Linear(D, D), n=rms(), o=nn.Linear(D, 3), p=nn.Linear(D, 3))
        assert found(sound(model, X, LONG)) == ["O(4)"] * 2

    def test_both_kinds_of_norm_on_one_stream(self):
        """What keeps the ones is a rotation for the RMS norm, too."""
        assert found(sound(stream(n=layer()), X, LONG)) == ["O(4)_1"]

    def test_a_gain_of_one_number_needs_no_conjugation(self):
        def norm(s, h):
            return h * (h.square().mean(-1, keepdim=True) + EPS).rsqrt() * s.number

        model = Net(lambda s, x: s.o(norm(s, s.a(x))), a=nn.Linear(D, D), o=nn.Linear(D, 3), number=parameter(1))
        (rotation,) = (s for s in sound(model, X, LONG).applied if s.group.symbol == "O(4)")
        assert not rotation.conditional

    @pytest.mark.parametrize("tied", [False, True])
    def test_embeddings(self, tied):
        """Tied to the head, a table would be in front of all norms and behind the last gain."""

        def forward(s, ids):
            h = s.tokens(ids) + s.positions[: ids.shape[1]]
            h = h + s.f(s.n(h))
            return s.l(h) @ (s.tokens.weight.t() if tied else s.head)

        parts = {"tokens": nn.Embedding(7, D), "positions": parameter(9, D), "head": parameter(D, 7)}
        model = Net(forward, **parts, n=rms(), l=rms(), f=branch())
        inputs = [(torch.arange(3 * n).reshape(3, n) % 7,) for n in (4, 8)]
        assert found(sound(model, *inputs)) == ["O(4)"] * (not tied)

    def test_tied_embeddings_behind_a_norm_without_a_gain(self):
        model = Net(
            lambda s, ids: s.l(s.tokens(ids)) @ s.tokens.weight.t(), tokens=nn.Embedding(7, D), l=rms(gain=False)
        )
        gauge = sound(model, (torch.arange(6).reshape(2, 3),))
        assert [s.group.symbol for s in gauge.applied] == ["O(4)"]

    def test_two_rotations_of_one_parameter_have_two_names(self):
        """Halves of the stream that are normalized apart."""

        def forward(s, x):
            return s.o(
                torch.cat(
                    [F.rms_norm(h, (D,), g, EPS) for h, g in zip(s.a(x).chunk(2, -1), (s.p, s.q), strict=True)], -1
                )
            )

        model = Net(forward, a=nn.Linear(D, 2 * D), o=nn.Linear(2 * D, 3), p=parameter(D), q=parameter(D))
        assert [(s.name, s.group.symbol) for s in rotations(sound(model, X))] == [
            ("a:rotation", "O(4)"),
            ("a:rotation.2", "O(4)"),
        ]

    def test_patches(self):
        """A convolution writes into the stream, beside a class token."""

        def forward(s, x):
            h = torch.cat([s.token.expand(x.shape[0], 1, D), s.a(x).flatten(2).mT], 1) + s.positions
            h = h + s.f(s.n(h))
            return s.o(s.l(h)[:, 0])

        parts = {"a": nn.Conv2d(1, D, 2, 2), "token": parameter(1, 1, D), "positions": parameter(1, 5, D)}
        model = Net(forward, **parts, n=layer(), l=layer(), f=branch(), o=nn.Linear(D, 3))
        assert found(sound(model, (torch.randn(3, 1, 4, 4),))) == ["O(4)_1"]


class Dropped(nn.Module):
    """A pre-norm branch with dropout on the stream, or within the branch."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.a, self.n, self.l, self.o = nn.Linear(D, D), rms(), rms(), nn.Linear(D, 3)
        self.up, self.down = nn.Linear(D, 3), nn.Linear(3, D)
        self.on, self.inside = (nn.Dropout(0.3 * (where == place)) for place in ("the stream", "the branch"))

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return self.o(self.l(h + self.on(self.down(self.inside(F.gelu(self.up(self.n(h))))))))


@pytest.mark.parametrize(("where", "exactness"), [("the stream", "DROPOUT_FREE"), ("the branch", "EXACT")])
def test_dropout(where, exactness):
    (rotation,) = rotations(sound(Dropped(where), X, LONG))
    assert rotation.exactness is Exactness[exactness]


def test_a_gain_of_zero_is_an_error_and_changes_nothing():
    model = stream()
    gauge = gaugefix.discover(model, X)
    gauge = gauge.select(lambda s: isinstance(s, ResidualRotation))
    with torch.no_grad():
        model.m.weight[1] = 0.0
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(SymmetryError, match=r"Expected gains other than 0 in 'm.weight', got 1 zeros.*gauge.select"):
        gaugefix.act_(model, gauge, gauge.random(conditional=True))
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


@pytest.mark.parametrize("make", [nn.LayerNorm, nn.RMSNorm])
def test_a_stream_that_is_normalized_with_a_copy_of_itself_has_two_gains_for_each_channel(make):
    """One gain for each channel would be false: the copies behind the norm move by different matrices."""

    def forward(s, x):
        return s.o(s.n(x @ torch.cat([s.w, s.w], 1)))

    model = Net(forward, w=parameter(D, D), n=make(2 * D, EPS), o=nn.Linear(2 * D, 3))
    assert not rotations(sound(model, (torch.randn(3, 5, D),)))
