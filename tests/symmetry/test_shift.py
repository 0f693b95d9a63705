"""Shifts: linear forms, maps between channels, and constants that meet a bias."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gaugefix import discover
from gaugefix.errors import SymmetryError
from gaugefix.groups import Translations
from gaugefix.symmetry import Absorb, Add, ChannelMap, Derive, Exactness, Form, ShiftSymmetry, Solve, named_tensors
from tests.discovery.architectures import ARCHITECTURES


def double(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


class TestForm:
    def test_value(self):
        form = Form(((2.0, np.array([0, 1])), (-1.0, np.array([1, -1]))))
        t = torch.tensor([3.0, 5.0, 0.0])  # the last entry is what index −1 stands for
        assert form.value(t).tolist() == [2 * 3 - 5, 2 * 5]

    def test_empty(self):
        with pytest.raises(SymmetryError, match="Expected at least one term for a shift form, got none"):
            Form(()).value(torch.zeros(1))

    def test_read_only(self):
        form = Form(((1, np.array([0])),))
        assert form.terms[0][0] == 1.0
        with pytest.raises(ValueError, match="read-only"):
            form.terms[0][1][0] = 3


class TestChannelMap:
    """W·c is what the operation does to a constant input."""

    def test_linear(self):
        w, c = double(3, 4), double(4)
        torch.testing.assert_close(ChannelMap("w").apply({"w": w}, c), F.linear(c, w))

    def test_matmul(self):
        w, c = double(4, 3), double(4)
        torch.testing.assert_close(ChannelMap("w", transposed=True).apply({"w": w}, c), c @ w)

    @pytest.mark.parametrize("groups", [1, 2])
    def test_convolution(self, groups):
        w, c = double(6, 4 // groups, 3), double(4)
        expected = F.conv1d(c.reshape(1, 4, 1).expand(1, 4, 3), w, groups=groups).reshape(-1)
        torch.testing.assert_close(ChannelMap("w", groups=groups).apply({"w": w}, c), expected)

    def test_rows_of_a_parameter(self):
        w, c = double(4, 3), double(3)
        entries = np.arange(12).reshape(4, 3)[1:3]
        torch.testing.assert_close(ChannelMap("w", entries).apply({"w": w}, c), w[1:3] @ c)


def chain_of_maps() -> tuple[ShiftSymmetry, dict[str, torch.Tensor]]:
    """x → x + b, V x without bias, W (V x) + d: b moves by t, V·t walks on, d takes W V t back."""
    symmetry = ShiftSymmetry(
        "s",
        Exactness.EXACT,
        acting=Translations(3),
        size=5,
        steps=(Derive(np.array([3, 4]), ChannelMap("V"), Form(((1.0, np.arange(3)),))),),
        legs=(
            Add("b", Form(((1.0, np.arange(3)),))),
            Absorb("d", ChannelMap("W"), Form(((1.0, np.array([3, 4])),)), None),
        ),
    )
    return symmetry, {"b": double(3), "V": double(2, 3), "W": double(4, 2), "d": double(4)}


def test_constant_walks_through_a_map_without_bias():
    symmetry, P = chain_of_maps()
    t, x = double(3), double(7, 3)
    moved = P | symmetry.act(P, t)

    def function(p: dict[str, torch.Tensor]) -> torch.Tensor:
        return (x + p["b"]) @ p["V"].T @ p["W"].T + p["d"]

    torch.testing.assert_close(function(moved), function(P), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(moved["b"], P["b"] + t, rtol=0, atol=0)
    torch.testing.assert_close(moved["d"], P["d"] - P["W"] @ P["V"] @ t, rtol=1e-13, atol=1e-13)
    assert set(symmetry.reads) == {"b", "d", "W", "V"}
    assert symmetry.parameters == ("b", "d")
    assert symmetry.dimension == 3


def test_solved_unknowns_follow_the_free_ones():
    """t₁ = −2 t₀: two biases of one stream."""
    symmetry = ShiftSymmetry(
        "s",
        Exactness.EXACT,
        acting=Translations(1),
        size=2,
        steps=(Solve(np.array([1]), Form(((-2.0, np.array([0])),))),),
        legs=(Add("a", Form(((1.0, np.array([0])),))), Add("b", Form(((1.0, np.array([1])),)))),
    )
    moved = symmetry.act({"a": torch.zeros(1).double(), "b": torch.zeros(1).double()}, torch.tensor([3.0]).double())
    assert (float(moved["a"]), float(moved["b"])) == (3.0, -6.0)


def test_inverse_undoes_and_translations_add_up():
    symmetry, P = chain_of_maps()
    s, t = double(3), double(3)
    back = symmetry.act(P | symmetry.act(P, t), symmetry.group.inverse(t))
    both = symmetry.act(P | symmetry.act(P, s), t)
    one = symmetry.act(P, symmetry.group.compose(s, t))
    for name in symmetry.parameters:
        torch.testing.assert_close(back[name], P[name], rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(both[name], one[name], rtol=1e-13, atol=1e-13)


def test_overlap_is_left_out_of_the_dimension():
    symmetry = ShiftSymmetry(
        "s",
        Exactness.EXACT,
        acting=Translations(3),
        size=3,
        steps=(),
        legs=(Add("b", Form(((1.0, np.arange(3)),))),),
        overlap=1,
    )
    assert symmetry.dimension == 2
    assert symmetry.group.dimension == 3


def test_rows_of_an_embedding_move_together():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 5))
    symmetry = discover(model, (torch.arange(9).reshape(3, 3),))["0.weight:shift"]
    P = {name: v.double() for name, v in named_tensors(model).items()}
    t = double(4)
    moved = symmetry.act(P, t)
    torch.testing.assert_close(moved["0.weight"], P["0.weight"] + t, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(moved["1.bias"], P["1.bias"] - P["1.weight"] @ t, rtol=1e-14, atol=1e-14)


def test_bias_moves_through_maps_without_bias_of_a_real_network():
    torch.manual_seed(0)
    model, _ = ARCHITECTURES["bias through bias-free maps"]()
    gauge = discover(model, (torch.randn(5, 4),))
    (shift,) = [s for s in gauge.symmetries if s.name.endswith("shift")]
    P = {name: v.detach().double() for name, v in named_tensors(model).items()}
    t = double(4)
    moved = shift.act(P, t)
    torch.testing.assert_close(moved["0.bias"] - P["0.bias"], t, rtol=1e-13, atol=1e-13)
    walked = P["3.weight"] @ P["2.weight"] @ P["1.weight"] @ t
    torch.testing.assert_close(moved["3.bias"] - P["3.bias"], -walked, rtol=1e-12, atol=1e-12)


def test_dtype_of_a_parameter_is_kept():
    symmetry, P = chain_of_maps()
    moved = symmetry.act({name: v.float() for name, v in P.items()}, double(3))
    assert {v.dtype for v in moved.values()} == {torch.float32}
