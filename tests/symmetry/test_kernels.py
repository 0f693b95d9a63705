"""Kernels of layer norms: what writers may add and readers cannot see."""

import pytest
import torch
import torch.nn.functional as F

from gaugefix.groups import Translations
from gaugefix.symmetry import Exactness, ReaderKernel, WriterKernel


def double(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def writer(axis: int = 0, size: int = 3, **options: int) -> WriterKernel:
    return WriterKernel("w", Exactness.EXACT, weight="W", axis=axis, acting=Translations(size), **options)


def reader(gain: bool = True, shift: bool = True, transposed: bool = False, overlap: int = 0) -> ReaderKernel:
    return ReaderKernel(
        "r",
        Exactness.EXACT,
        weight="W",
        axis=0 if transposed else 1,
        out_axis=1 if transposed else 0,
        bias="b" if shift else None,
        gain="g" if gain else None,
        shift="β" if shift else None,
        acting=Translations(4),
        overlap=overlap,
    )


def norm(x: torch.Tensor, P: dict[str, torch.Tensor], gain: bool = True, shift: bool = True) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], P["g"] if gain else None, P["β"] if shift else None, 0.05)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_norm_does_not_see_what_all_writers_add(axis):
    W, s, x = double(5, 5), double(5), double(7, 5)
    moved = writer(axis, 5).act({"W": W}, s)["W"]
    maps = [x @ (m.T if axis == 0 else m) for m in (W, moved)]
    torch.testing.assert_close(*[F.layer_norm(y, (5,)) for y in maps], rtol=1e-12, atol=1e-12)
    assert float((maps[0] - maps[1]).norm()) > 1e-2


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("gain", "shift"), [(True, True), (True, False), (False, True), (False, False)])
def test_readers_cannot_see_multiples_of_the_inverse_gain(gain, shift, transposed):
    P = {"W": double(5, 4) if transposed else double(4, 5), "b": double(4), "g": double(5), "β": double(5)}
    kernel, u, x = reader(gain, shift, transposed), double(4), double(7, 5)
    moved = P | kernel.act(P, u)
    out = [
        norm(x, p, gain, shift) @ (p["W"] if transposed else p["W"].T) + (p["b"] if shift else 0.0) for p in (P, moved)
    ]
    torch.testing.assert_close(*out, rtol=1e-11, atol=1e-11)
    assert float((moved["W"] - P["W"]).norm()) > 1e-2
    assert set(kernel.parameters) == ({"W", "b"} if shift else {"W"})
    assert set(kernel.reads) == {"W"} | ({"b", "β"} if shift else set()) | ({"g"} if gain else set())


def test_the_constant_goes_into_the_bias():
    P = {"W": double(4, 5), "b": double(4), "g": double(5), "β": double(5)}
    u = double(4)
    moved = reader().act(P, u)
    torch.testing.assert_close(moved["b"], P["b"] - u * (P["β"] / P["g"]).sum(), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(moved["W"], P["W"] + u[:, None] / P["g"], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kernel", [writer(0, 5), reader()], ids=["writer", "reader"])
def test_inverse_undoes_and_kernels_add_up(kernel):
    P = {"W": double(4, 5), "b": double(4), "g": double(5), "β": double(5)}
    s, t = double(kernel.group.n), double(kernel.group.n)
    back = kernel.act(P | kernel.act(P, t), kernel.group.inverse(t))
    both, one = kernel.act(P | kernel.act(P, s), t), kernel.act(P, kernel.group.compose(s, t))
    for name in kernel.parameters:
        torch.testing.assert_close(back[name], P[name], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(both[name], one[name], rtol=1e-12, atol=1e-12)


def test_a_convolution_of_one_position():
    W, u = double(4, 5, 1, 1), double(4)
    P = {"W": W, "b": double(4), "g": double(5), "β": double(5)}
    moved = reader().act(P, u)["W"]
    torch.testing.assert_close(moved[..., 0, 0], W[..., 0, 0] + u[:, None] / P["g"], rtol=1e-13, atol=1e-13)


def test_overlaps_are_left_out_of_the_dimension():
    assert (writer(overlap=1).dimension, writer().dimension) == (2, 3)
    assert (reader(overlap=1).dimension, reader().dimension) == (3, 4)


def test_dtype_is_kept():
    P = {name: v.float() for name, v in {"W": double(4, 5), "b": double(4), "g": double(5), "β": double(5)}.items()}
    assert {v.dtype for v in reader().act(P, double(4)).values()} == {torch.float32}
    assert writer(0, 5).act(P, double(5))["W"].dtype == torch.float32
