"""Nearest elements, symmetry by symmetry, against general minimisers and closed forms."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import optimize

from gaugefix.groups import (
    ComplexScaling,
    GeneralLinear,
    Orthogonal,
    Permutations,
    PositiveScaling,
    SignedScaling,
    Signs,
)
from gaugefix.slices.nearest_block import nearest_blocks, nearest_orthogonal
from gaugefix.slices.nearest_scale import minimise, nearest_planes, nearest_scaling
from gaugefix.slices.nearest_turn import nearest_permutation, nearest_rotation, nearest_stream
from gaugefix.symmetry import Exactness, Gain, Leg, LinearSymmetry, ResidualRotation


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(group, seed=0, width=5):
    """A vector leg and a covector leg, parameters and a goal that is not on the orbit."""
    n = group.coordinates
    index = np.arange(n)
    legs = (Leg("p", index[:, None], 1, 0), Leg("q", index[None, :], -1, 1))
    symmetry = LinearSymmetry("s", Exactness.EXACT, acting=group, legs=legs)
    tensors = {"p": normal(n, width, seed=seed), "q": normal(width - 1, n, seed=seed + 1)}
    goal = {"p": normal(n, width, seed=seed + 2), "q": normal(width - 1, n, seed=seed + 3)}
    return symmetry, tensors, goal


def apart(symmetry, tensors, goal, value):
    moved = symmetry.act(tensors, value)
    return sum(float((moved[name] - goal[name]).square().sum()) for name in goal)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", [PositiveScaling, SignedScaling])
def test_scales_are_the_best_of_every_unit(kind, seed):
    symmetry, tensors, goal = pair(kind(4), seed)
    found = nearest_scaling(symmetry, tensors, goal, compact=False)
    best = apart(symmetry, tensors, goal, found)
    for sign in (1.0, -1.0) if kind is SignedScaling else (1.0,):
        for u in torch.linspace(-3.0, 3.0, 400, dtype=torch.float64):
            for k in range(4):
                other = found.clone()
                other[k] = sign * u.exp()
                assert best <= apart(symmetry, tensors, goal, other) + 1e-12
    symmetry.group.check(found)


def test_a_power_of_two_counts():
    legs = (Leg("p", np.arange(3)[:, None], 1, 0), Leg("q", np.arange(3)[None, :], -2, 1))
    symmetry = LinearSymmetry("s", Exactness.EXACT, acting=PositiveScaling(3), legs=legs)
    _, tensors, goal = pair(PositiveScaling(3))
    found = nearest_scaling(symmetry, tensors, goal, compact=False).clone().requires_grad_()
    moved = symmetry.act(tensors, found)
    sum((moved[name] - goal[name]).square().sum() for name in goal).backward()
    assert float(found.grad.abs().max()) < 1e-9


def test_signs_are_those_of_the_scalar_products():
    for group in (Signs(4), SignedScaling(4)):
        symmetry, tensors, goal = pair(group)
        found = nearest_scaling(symmetry, tensors, goal, compact=True)
        products = (tensors["p"] * goal["p"]).sum(1) + (tensors["q"] * goal["q"]).sum(0)
        assert torch.equal(found, products.sign())
    symmetry, tensors, goal = pair(PositiveScaling(4))
    assert torch.equal(nearest_scaling(symmetry, tensors, goal, compact=True), torch.ones(4, dtype=torch.float64))


def test_the_line_search_finds_the_lower_of_two_minima():
    def line(u):
        return (u * u - 1.0).square() + 0.3 * u, 4.0 * u * (u * u - 1.0) + 0.3, 12.0 * u * u - 4.0

    u, value = minimise(line, 2, torch.device("cpu"))
    expected = optimize.minimize_scalar(lambda x: (x * x - 1.0) ** 2 + 0.3 * x, bounds=(-2, 0), method="bounded")
    torch.testing.assert_close(u, torch.full((2,), expected.x, dtype=torch.float64), rtol=0, atol=1e-5)
    assert float(value.max()) <= expected.fun + 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_planes_are_the_best_of_every_phase_and_scale(seed):
    symmetry, tensors, goal = pair(ComplexScaling(2), seed)
    found = nearest_planes(symmetry, tensors, goal, compact=False)
    symmetry.group.check(found)
    best = apart(symmetry, tensors, goal, found)

    def value(x):
        z = torch.tensor(x, dtype=torch.float64).reshape(2, 2)
        element = torch.stack([torch.stack([z[:, 0], -z[:, 1]], -1), torch.stack([z[:, 1], z[:, 0]], -1)], -2)
        return apart(symmetry, tensors, goal, element)

    for start in range(8):
        angle = start * math.pi / 4
        x0 = np.array([math.cos(angle), math.sin(angle)] * 2)
        assert best <= optimize.minimize(value, x0, method="Nelder-Mead", options={"maxiter": 2000}).fun + 1e-9


def test_only_the_phase_moves_where_that_is_asked():
    symmetry, tensors, goal = pair(ComplexScaling(3))
    found = nearest_planes(symmetry, tensors, goal, compact=True)
    torch.testing.assert_close(found @ found.mT, torch.eye(2, dtype=torch.float64).expand(3, 2, 2))
    best = apart(symmetry, tensors, goal, found)
    for seed in range(50):
        angle = 3.0 * normal(3, seed=seed)
        turn = torch.stack(
            [torch.stack([angle.cos(), -angle.sin()], -1), torch.stack([angle.sin(), angle.cos()], -1)], -2
        )
        assert best <= apart(symmetry, tensors, goal, turn) + 1e-12


def block_problem(n, seed, on_orbit):
    p, q = normal(2, n, 6, seed=seed), normal(2, n, 7, seed=seed + 1)
    if on_orbit:
        g = GeneralLinear(n, 2).random(1.0, torch.Generator().manual_seed(seed))
        return p, q, g @ p, torch.linalg.inv(g).mT @ q
    return p, q, normal(2, n, 6, seed=seed + 2), normal(2, n, 7, seed=seed + 3)


def moments(p, q, p0, q0):
    return p @ p.mT, q @ q.mT, p0 @ p.mT, q0 @ q.mT, q0 @ q0.mT


@pytest.mark.parametrize("n", [1, 3, 5])
def test_a_block_on_the_orbit_is_found_exactly(n):
    p, q, p0, q0 = block_problem(n, 0, on_orbit=True)
    g = nearest_blocks(*moments(p, q, p0, q0))
    torch.testing.assert_close(g @ p, p0, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_a_general_optimiser_finds_no_nearer_block(seed):
    p, q, p0, q0 = block_problem(3, seed, on_orbit=False)
    g = nearest_blocks(*moments(p, q, p0, q0))

    def distance(g):
        return (g @ p - p0).square().sum((1, 2)) + (torch.linalg.inv(g).mT @ q - q0).square().sum((1, 2))

    mine = distance(g)
    for start in (torch.eye(3, dtype=torch.float64).repeat(2, 1, 1), g + 0.1 * normal(2, 3, 3, seed=seed)):
        x = start.clone().requires_grad_()
        optimiser = torch.optim.LBFGS([x], max_iter=300, tolerance_grad=1e-11, line_search_fn="strong_wolfe")

        def closure(x=x, optimiser=optimiser):
            optimiser.zero_grad()
            loss = distance(x).sum()
            loss.backward()
            return loss

        optimiser.step(closure)
        assert bool((mine <= distance(x.detach()) + 1e-6).all())
    x = g.clone().requires_grad_()
    distance(x).sum().backward()
    assert float((x.grad @ g.mT).abs().max()) < 1e-5 * float(mine.max())


def test_blocks_of_deficient_rank_on_both_sides_are_matched():
    n = 4
    p = normal(1, n, 2) @ normal(1, 2, 6, seed=1)
    q = normal(1, n, 3, seed=2) @ normal(1, 3, 7, seed=3)
    g = GeneralLinear(n).random(0.5, torch.Generator().manual_seed(0))
    p0, q0 = g @ p, torch.linalg.inv(g).mT @ q
    found = nearest_blocks(*moments(p, q, p0, q0))
    torch.testing.assert_close(found @ p, p0, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(torch.linalg.inv(found).mT @ q, q0, rtol=1e-6, atol=1e-7)


def test_rotations_are_polar_factors():
    symmetry, tensors, goal = pair(Orthogonal(4))
    found = nearest_rotation(symmetry, tensors, goal)
    moment = goal["p"] @ tensors["p"].T + goal["q"].T @ tensors["q"]
    torch.testing.assert_close(found[0], nearest_orthogonal(moment[None])[0])
    best = apart(symmetry, tensors, goal, found)
    for seed in range(30):
        other = symmetry.group.random(0.2, torch.Generator().manual_seed(seed))
        assert best <= apart(symmetry, tensors, goal, symmetry.group.compose(other, found)) + 1e-12


def test_rotations_that_keep_the_ones_are_the_best_of_those():
    symmetry, tensors, goal = pair(Orthogonal(4, fixes_ones=True))
    found = nearest_rotation(symmetry, tensors, goal)
    symmetry.group.check(found)
    best = apart(symmetry, tensors, goal, found)
    for seed in range(30):
        other = symmetry.group.random(0.2, torch.Generator().manual_seed(seed))
        assert best <= apart(symmetry, tensors, goal, symmetry.group.compose(other, found)) + 1e-12


@pytest.mark.parametrize("spread", [0.0, 0.5])
@pytest.mark.parametrize("ones", [False, True])
def test_a_stream_turns_to_a_minimum_whatever_its_gains(ones, spread):
    n = 5
    gain = Gain("gain", np.arange(n))
    legs = ((Leg("writer", np.arange(n)[:, None], 1, 0), None), (Leg("reader", np.arange(n)[None, :], -1, 1), gain))
    rotation = ResidualRotation("r", Exactness.EXACT, acting=Orthogonal(n, fixes_ones=ones), legs=legs)
    tensors = {"writer": normal(n, 6), "reader": normal(4, n, seed=1), "gain": (spread * normal(n, seed=2)).exp()}
    goal = {"writer": normal(n, 6, seed=3), "reader": normal(4, n, seed=4), "gain": tensors["gain"]}
    found = nearest_stream(rotation, tensors, goal)
    rotation.group.check(found)
    goal = {name: goal[name] for name in ("writer", "reader")}
    best = apart(rotation, tensors, goal, found)
    assert best <= apart(rotation, tensors, goal, rotation.group.identity())
    for seed in range(30):
        other = rotation.group.random(0.05, torch.Generator().manual_seed(seed), discrete=False)
        assert best <= apart(rotation, tensors, goal, rotation.group.compose(other, found)) + 1e-9


def test_permutations_are_the_best_of_all():
    symmetry, tensors, goal = pair(Permutations(5))
    best = apart(symmetry, tensors, goal, nearest_permutation(symmetry, tensors, goal))
    every = [apart(symmetry, tensors, goal, torch.tensor(p)) for p in permutations(range(5))]
    assert best == pytest.approx(min(every), rel=1e-12)


def test_whole_heads_are_permuted():
    head = np.arange(6) // 2
    symmetry = LinearSymmetry(
        "s", Exactness.EXACT, acting=Permutations(3), legs=(Leg("p", head[:, None], 1, 0), Leg("q", head[None], 1, 1))
    )
    tensors = {"p": normal(6, 4), "q": normal(3, 6, seed=1)}
    goal = symmetry.act(tensors, torch.tensor([2, 0, 1]))
    assert nearest_permutation(symmetry, tensors, goal).tolist() == [2, 0, 1]
