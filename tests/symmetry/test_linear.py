"""Linear symmetries: checks, action, and the laws by which gradients move."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gaugefix.errors import SymmetryError
from gaugefix.groups import (
    GeneralLinear,
    Group,
    Orthogonal,
    Permutations,
    PositiveScaling,
    SignedScaling,
    Signs,
)
from gaugefix.symmetry import GRADIENT, PARAMETER, SQUARED_GRADIENT, Exactness, Leg, LinearSymmetry

EPS = torch.finfo(torch.float64).eps
GROUPS = [
    PositiveScaling(4),
    SignedScaling(4),
    Signs(4),
    GeneralLinear(4),
    GeneralLinear(2, 2),
    Orthogonal(4),
    Permutations(4),
]


def symmetry(group: Group, *legs: Leg) -> LinearSymmetry:
    return LinearSymmetry("s", Exactness.EXACT, acting=group, legs=legs)


def pair(group: Group) -> LinearSymmetry:
    """W (5, 4) reads what V (4, 3) writes."""
    return symmetry(
        group,
        Leg("V", np.arange(4).reshape(4, 1)),
        Leg("b", np.arange(4)),
        Leg("W", np.arange(4).reshape(1, 4), power=-1, axis=1),
    )


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"V": (4, 3), "b": (4,), "W": (5, 4)}
    return {name: torch.randn(s, generator=generator, dtype=torch.float64) for name, s in shapes.items()}


def element(group: Group, seed: int = 0) -> torch.Tensor:
    return group.random(0.4, torch.Generator().manual_seed(seed))


class TestChecks:
    def test_no_leg(self):
        with pytest.raises(SymmetryError, match=r"Expected at least one leg for symmetry 's'. Leave the symmetry out"):
            symmetry(Signs(2))

    def test_coordinate_outside_the_group(self):
        message = r"Expected coordinates below 2 \(Z2\^2\) for the leg of 's' on 'w', got 2. Give a larger group"
        with pytest.raises(SymmetryError, match=message):
            symmetry(Signs(2), Leg("w", np.arange(3)))

    def test_power_of_a_matrix(self):
        message = "Expected power 1 or -1 for the leg of 's' on 'w', got 2. Only diagonal groups have other powers"
        with pytest.raises(SymmetryError, match=message):
            symmetry(GeneralLinear(2), Leg("w", np.arange(2), power=2))

    def test_coordinates_that_do_not_pair(self):
        with pytest.raises(SymmetryError, match="equally often in 'w'"):
            symmetry(GeneralLinear(2), Leg("w", np.array([0, 0, 1])))
        symmetry(PositiveScaling(2), Leg("w", np.array([0, 0, 1])))


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.symbol)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_contraction_is_invariant(group, seed):
    P, g = tensors(seed), element(group, seed)
    moved = pair(group).act(P, g)
    condition = max(1.0, *(float(v.norm()) for v in moved.values())) ** 2
    torch.testing.assert_close(moved["W"] @ moved["V"], P["W"] @ P["V"], rtol=0, atol=100 * EPS * condition)


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.symbol)
def test_inverse_undoes_and_composition_composes(group):
    s, P, g, h = pair(group), tensors(), element(group, 1), element(group, 2)
    back = s.act(s.act(P, g), group.inverse(g))
    both, one = s.act(s.act(P, g), h), s.act(P, group.compose(h, g))
    for name in P:
        torch.testing.assert_close(back[name], P[name], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(both[name], one[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.symbol)
def test_gradients_move_by_the_inverse_transpose(group):
    """<g', dP'> = <g, dP>: the change of a loss does not depend on the point of the orbit."""
    s, value = pair(group), element(group, 3)
    step, gradient = tensors(4), tensors(5)
    moved, transported = s.transport(step, value, PARAMETER), s.transport(gradient, value, GRADIENT)
    for name in step:
        before, after = (gradient[name] * step[name]).sum(), (transported[name] * moved[name]).sum()
        torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.symbol)
def test_gradients_agree_with_autograd(group):
    """The gradient at the moved point, of the loss of an unchanged function."""
    s, value, P = pair(group), element(group, 6), tensors(7)

    def gradient(at: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        leaves = {name: v.clone().requires_grad_() for name, v in at.items()}
        loss = (
            (leaves["W"] @ torch.nn.functional.linear(torch.eye(3).double(), leaves["V"], leaves["b"]).T).square().sum()
        )
        return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))

    expected, transported = gradient(s.act(P, value)), s.transport(gradient(P), value, GRADIENT)
    for name in P:
        torch.testing.assert_close(transported[name], expected[name], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "group", [PositiveScaling(4), SignedScaling(4), Signs(4), Permutations(4)], ids=lambda g: g.symbol
)
def test_squared_gradients_move_exactly_under_monomial_elements(group):
    s, value, gradient = pair(group), element(group, 8), tensors(9)
    squared = s.transport({name: g.square() for name, g in gradient.items()}, value, SQUARED_GRADIENT)
    for name, moved in s.transport(gradient, value, GRADIENT).items():
        torch.testing.assert_close(squared[name], moved.square(), rtol=1e-13, atol=0)


@pytest.mark.parametrize("group", [GeneralLinear(4), Orthogonal(4)], ids=lambda g: g.symbol)
def test_squared_gradients_stay_positive_under_mixing(group):
    squared = {name: g.square() for name, g in tensors(10).items()}
    moved = pair(group).transport(squared, element(group, 11), SQUARED_GRADIENT)
    assert all(bool((v > 0).all()) for v in moved.values())


class TestOffsets:
    def test_running_variance_moves_with_its_eps(self):
        s = symmetry(PositiveScaling(2), Leg("var", np.arange(2), power=2, offset=0.1, buffer=True))
        var, scale = torch.tensor([0.5, 2.0]).double(), torch.tensor([2.0, 3.0]).double()
        moved = s.act({"var": var}, scale)["var"]
        torch.testing.assert_close((moved + 0.1).sqrt(), scale * (var + 0.1).sqrt(), rtol=1e-14, atol=0)

    def test_gradient_ignores_the_offset(self):
        s = symmetry(PositiveScaling(2), Leg("g", np.arange(2), offset=1.0))
        gradient, scale = torch.tensor([1.0, -2.0]).double(), torch.tensor([2.0, 4.0]).double()
        torch.testing.assert_close(s.transport({"g": gradient}, scale, GRADIENT)["g"], gradient / scale, rtol=0, atol=0)

    @pytest.mark.parametrize("group", [GeneralLinear(4), Orthogonal(4)], ids=lambda g: g.symbol)
    def test_a_matrix_acts_on_the_whole_and_leaves_other_entries_alone(self, group):
        s = symmetry(group, Leg("w", np.array([[-1, 0, 1, 2, 3]]), offset=0.5, axis=1))
        w, g = torch.randn(3, 5, dtype=torch.float64), element(group, 12)
        moved = s.act({"w": w}, g)["w"]
        assert torch.equal(moved[:, 0], w[:, 0])
        torch.testing.assert_close(moved[:, 1:] + 0.5, (w[:, 1:] + 0.5) @ g[0].T, rtol=1e-13, atol=1e-13)


class TestEntries:
    def test_untouched_entries_are_bit_equal(self):
        s = symmetry(SignedScaling(2), Leg("w", np.array([[0], [-1], [1]])))
        w = torch.randn(3, 4)
        moved = s.act({"w": w}, torch.tensor([2.0, -0.5]).double())["w"]
        assert torch.equal(moved, torch.stack([2 * w[0], w[1], -0.5 * w[2]]))

    def test_powers_of_two_are_exact(self):
        w = torch.randn(4, 3)
        s = symmetry(PositiveScaling(4), Leg("w", np.arange(4).reshape(4, 1)))
        g = torch.tensor([2.0, 0.25, 1.0, 1024.0]).double()
        moved = s.act({"w": w}, g)
        assert torch.equal(s.act(moved, g.reciprocal())["w"], w)

    def test_two_legs_on_one_parameter(self):
        """A square matrix that is read and written by the same axis: g W g⁻¹."""
        s = symmetry(
            GeneralLinear(3), Leg("w", np.arange(3).reshape(3, 1)), Leg("w", np.arange(3).reshape(1, 3), -1, axis=1)
        )
        w, g = torch.randn(3, 3, dtype=torch.float64), element(GeneralLinear(3), 13)
        torch.testing.assert_close(s.act({"w": w}, g)["w"], g[0] @ w @ g[0].inverse(), rtol=1e-12, atol=1e-12)
        assert s.parameters == ("w",)

    def test_copies_of_a_block_move_alike(self):
        """Columns (channel, position): both positions of every channel are mixed by the same matrix."""
        s = symmetry(GeneralLinear(2), Leg("w", np.array([[0, 0, 1, 1]]), axis=1))
        w, g = torch.randn(3, 4, dtype=torch.float64), element(GeneralLinear(2), 14)
        expected = torch.einsum("ij,rjp->rip", g[0], w.reshape(3, 2, 2)).reshape(3, 4)
        torch.testing.assert_close(s.act({"w": w}, g)["w"], expected, rtol=1e-13, atol=1e-13)

    def test_absent_tensors_are_skipped_and_the_given_ones_are_left_alone(self):
        s, P = pair(PositiveScaling(4)), tensors()
        before = {name: v.clone() for name, v in P.items()}
        assert set(s.transport({"b": P["b"]}, element(PositiveScaling(4)), GRADIENT)) == {"b"}
        s.act(P, element(PositiveScaling(4)))
        assert all(torch.equal(P[name], before[name]) for name in P)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("group", GROUPS, ids=lambda g: g.symbol)
    def test_dtype_is_kept(self, group, dtype):
        P = {name: v.to(dtype) for name, v in tensors().items()}
        assert {v.dtype for v in pair(group).act(P, element(group)).values()} == {dtype}

    def test_action_is_differentiable_in_the_element(self):
        s, P = pair(PositiveScaling(4)), tensors()
        x = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        moved = s.act(P, x.exp())
        (slope,) = torch.autograd.grad(sum(v.square().sum() for v in moved.values()) / 2, x)
        charge = P["V"].square().sum(1) + P["b"].square() - P["W"].square().sum(0)
        torch.testing.assert_close(slope, charge, rtol=1e-13, atol=1e-13)


def test_description():
    s = pair(GeneralLinear(4))
    assert [(p.parameter, p.role) for p in s.parts] == [
        ("V", "vector on axis 0"),
        ("b", "vector on axis 0"),
        ("W", "covector on axis 1"),
    ]
    assert s.parameters == s.reads == ("V", "b", "W")
    assert s.dimension == 16
    assert s.block == 4
    assert symmetry(GeneralLinear(2, 2), Leg("w", np.arange(4))).block == 2
