"""Residual rotations: checks, composition, inverse, and how gradients move."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gaugefix
from gaugefix.errors import SymmetryError
from gaugefix.groups import Orthogonal
from gaugefix.symmetry import (
    GRADIENT,
    SQUARED_GRADIENT,
    Element,
    Exactness,
    Gain,
    GaugeGroup,
    Leg,
    ResidualRotation,
    named_tensors,
)
from gaugefix.testing import randomise_
from tests.discovery.streams import D, layer, rms, stream

EPS = torch.finfo(torch.float64).eps
NORMS = pytest.mark.parametrize("norm", [rms, layer], ids=["RMS", "layer norm"])


def rotation(norm: object, seed: int = 0) -> tuple[nn.Module, ResidualRotation, GaugeGroup]:
    """A float64 stream with random gains, and its rotation."""
    model = stream(norm=norm, bias=True).double()
    randomise_(model, seed)
    gauge = gaugefix.discover(model, (torch.randn(2, 3, D, dtype=torch.float64),))
    (found,) = (s for s in gauge.symmetries if isinstance(s, ResidualRotation))
    return model, found, gauge.select(lambda s: s is found)


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in named_tensors(model).items()}


def element(symmetry: ResidualRotation, seed: int) -> Tensor:
    return symmetry.group.random(0.7, torch.Generator().manual_seed(seed))


def act(symmetry: ResidualRotation, state: dict[str, Tensor], value: Tensor) -> dict[str, Tensor]:
    return {**state, **symmetry.act(state, value)}


def apart(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return max(float((a[name] - b[name]).norm() / b[name].norm()) for name in b)


class TestLaws:
    @NORMS
    def test_one_after_the_other_is_their_product(self, norm):
        model, s, _ = rotation(norm)
        a, b = element(s, 1), element(s, 2)
        state = tensors(model)
        assert apart(act(s, act(s, state, a), b), act(s, state, s.group.compose(b, a))) < 50 * EPS

    @NORMS
    def test_the_inverse_undoes_it(self, norm):
        model, s, _ = rotation(norm)
        state, a = tensors(model), element(s, 1)
        assert apart(act(s, act(s, state, a), s.group.inverse(a)), state) < 50 * EPS

    def test_the_identity_moves_nothing(self):
        model, s, _ = rotation(rms)
        state = tensors(model)
        assert apart(act(s, state, s.group.identity()), state) < 4 * EPS

    @NORMS
    def test_gains_stay(self, norm):
        model, s, _ = rotation(norm)
        assert set(s.reads) - set(s.parameters) == {"n.weight", "m.weight", "l.weight"}
        assert not {"n.weight", "m.weight", "l.weight"} & set(s.act(tensors(model), element(s, 1)))

    def test_a_reader_moves_by_the_conjugated_matrix(self):
        """W → W (γRγ⁻¹)⁻¹, spelled out."""
        model, s, _ = rotation(rms)
        state, r = tensors(model), element(s, 1)
        gain = state["l.weight"]
        moved = s.act(state, r)["o.weight"]
        torch.testing.assert_close(moved, state["o.weight"] * gain @ r[0].mT / gain, rtol=1e-13, atol=1e-13)

    def test_reflections_act_too(self):
        model, s, gauge = rotation(rms)
        inputs = torch.randn(2, 3, D, dtype=torch.float64)
        before = model(inputs)
        mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64))[None]
        gaugefix.act_(model, gauge, Element(((s.name, mirror),)))
        assert (model(inputs) - before).norm() < 1e-13 * before.norm()


class TestGradients:
    @NORMS
    def test_gradients_are_those_at_the_new_point(self, norm):
        """Those of gains too, which mix with the gradients of their readers."""
        model, s, gauge = rotation(norm)
        inputs, targets = (torch.randn(2, 3, n, dtype=torch.float64) for n in (D, 3))

        def gradients() -> dict[str, Tensor]:
            model.zero_grad()
            nn.functional.mse_loss(model(inputs), targets).backward()
            return {name: p.grad.clone() for name, p in model.named_parameters()}

        before = gradients()
        at = tensors(model)
        gaugefix.act_(model, gauge, Element(((s.name, element(s, 1)),)))
        carried = {name: p.grad for name, p in model.named_parameters()}
        moved = s.transport(before, element(s, 1), GRADIENT, act(s, at, element(s, 1)))
        expected = gradients()
        largest = max(float(g.norm()) for g in expected.values())
        for name, gradient in expected.items():
            for got in (carried[name], moved.get(name, before[name])):
                assert float((got - gradient).norm()) < 1e-12 * largest, name
        assert float((before["n.weight"] - expected["n.weight"]).norm()) > 1e-3 * largest

    def test_squared_gradients_move_by_the_squares_of_the_matrix(self):
        model, s, _ = rotation(rms)
        state, r = tensors(model), element(s, 1)
        given = {name: t.square() for name, t in state.items() if name in s.reads}
        moved = s.transport(given, r, SQUARED_GRADIENT, act(s, state, r))
        gain = state["l.weight"]
        # W takes (γRγ⁻¹)⁻ᵀ, its gradient the inverse transpose of that, γRγ⁻¹ on the input axis.
        torch.testing.assert_close(
            moved["o.weight"], given["o.weight"] @ (gain[:, None] * r[0] / gain).square().mT, rtol=1e-12, atol=1e-12
        )
        torch.testing.assert_close(moved["a.weight"], r[0].square() @ given["a.weight"], rtol=1e-12, atol=1e-12)
        assert all(bool((t >= 0).all()) for t in moved.values())
        assert not {"n.weight", "m.weight", "l.weight"} & set(moved)

    def test_momentum_moves_like_a_gradient(self):
        """A step with momentum commutes with the rotation, which is what a step of plain SGD does on an orbit."""
        model, s, gauge = rotation(rms)
        inputs, targets = (torch.randn(2, 3, n, dtype=torch.float64) for n in (D, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()
        sums = {name: optimizer.state[p]["momentum_buffer"].clone() for name, p in model.named_parameters()}
        at = tensors(model)
        gaugefix.act_(model, gauge, Element(((s.name, element(s, 1)),)), optimizers=[optimizer])
        expected = s.transport(sums, element(s, 1), GRADIENT, act(s, at, element(s, 1)))
        for name, parameter in model.named_parameters():
            buffer = optimizer.state[parameter]["momentum_buffer"]
            torch.testing.assert_close(buffer, expected.get(name, sums[name]), rtol=1e-12, atol=1e-14)


class TestGain:
    def test_order_and_offset(self):
        gain = Gain("g", np.array([2, 0]), offset=1.0)
        assert gain.values({"g": torch.tensor([1.0, 5.0, 3.0])}).tolist() == [4.0, 2.0]
        with pytest.raises(ValueError, match="read-only"):
            gain.order[0] = 1

    def test_zeros_after_the_offset(self):
        with pytest.raises(SymmetryError, match=r"Expected gains other than 0 in 'g', got 2 zeros"):
            Gain("g", np.arange(3), offset=1.0).values({"g": torch.tensor([-1.0, 0.0, -1.0])})

    def test_a_leg_that_lacks_a_coordinate(self):
        legs = ((Leg("w", np.array([0, 1, -1])), None),)
        with pytest.raises(SymmetryError, match="Expected every coordinate of block 0 equally often in 'w'"):
            ResidualRotation("s", Exactness.EXACT, acting=Orthogonal(3), legs=legs)

    def test_a_leg_that_does_not_broadcast(self):
        symmetry = ResidualRotation(
            "s", Exactness.EXACT, acting=Orthogonal(3), legs=((Leg("w", np.arange(3)), Gain("g", np.arange(3))),)
        )
        with pytest.raises(SymmetryError, match=r"Expected an index that broadcasts to \(3, 2\)"):
            GaugeGroup((symmetry,), {"w": (3, 2), "g": (3,)})
        with pytest.raises(SymmetryError, match=r"Expected the shape of 'g' for symmetry 's', got none"):
            GaugeGroup((symmetry,), {"w": (3,)})
