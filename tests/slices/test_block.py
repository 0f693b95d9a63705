"""The minimal-norm slice of a GL block, in closed form."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gaugefix import act_, declare, drift, project_
from gaugefix.groups import GeneralLinear
from gaugefix.slices import MinimalNorm
from gaugefix.symmetry import LinearSymmetry
from tests.slices.small_nets import build, relative

TIGHT = MinimalNorm(tolerance=1e-10)


def pair(n, batch=1, fan_in=7, fan_out=6, seed=0, bias=True):
    """Two linear layers with ``batch`` blocks of size n between them (as heads of an attention), and their group."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(fan_in, n * batch, bias=bias), nn.Linear(n * batch, fan_out)).double()
    vectors = {"0.weight": 0} | ({"0.bias": 0} if bias else {})
    return net, declare(net, GeneralLinear(n, batch), vectors, {"1.weight": 1})


def moments(net, n, batch):
    """A = Σ PPᵀ over vectors, B = Σ PPᵀ over covectors, per block."""
    rows = [p.detach() for p in (net[0].weight, net[0].bias) if p is not None]
    vectors = torch.cat([r.reshape(n * batch, -1) for r in rows], dim=1).reshape(batch, n, -1)
    covectors = net[1].weight.detach().T.reshape(batch, n, -1)
    return vectors @ vectors.mT, covectors @ covectors.mT


@pytest.mark.parametrize(("n", "batch"), [(1, 1), (4, 1), (3, 2), (2, 5)])
def test_vectors_and_covectors_get_the_same_second_moments(n, batch):
    net, gauge = pair(n, batch)
    a, b = moments(net, n, batch)
    g = project_(net, gauge, "minimal_norm").steps[0][1]
    inverse = torch.linalg.inv(g)
    torch.testing.assert_close(g @ a @ g.mT, inverse.mT @ b @ inverse, rtol=1e-10, atol=1e-12)
    new_a, new_b = moments(net, n, batch)
    torch.testing.assert_close(new_a, g @ a @ g.mT, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(new_a, new_b, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(g, g.mT, rtol=0, atol=1e-12)  # the shortest way: no rotation
    assert bool((torch.linalg.eigvalsh(g) > 0).all())


@settings(max_examples=25)
@given(n=st.integers(1, 5), batch=st.integers(1, 3), seed=st.integers(0, 2**31), scale=st.floats(0.0, 2.0))
def test_the_least_norm_is_the_nuclear_norm_of_the_product(n, batch, seed, scale):
    net, gauge = pair(n, batch, seed=seed, bias=False)
    act_(net, gauge, gauge.random(scale, seed))
    blocks = [(net[1].weight[:, k : k + n] @ net[0].weight[k : k + n]).detach() for k in range(0, n * batch, n)]
    before = torch.stack([torch.linalg.svdvals(block) for block in blocks])
    project_(net, gauge, TIGHT)
    after = torch.stack(
        [torch.linalg.svdvals((net[1].weight[:, k : k + n] @ net[0].weight[k : k + n]).detach())
         for k in range(0, n * batch, n)]
    )  # fmt: skip
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-12)
    norm = net[0].weight.detach().square().sum() + net[1].weight.detach().square().sum()
    torch.testing.assert_close(norm, 2 * before[:, :n].sum(), rtol=1e-9, atol=0)


def test_the_projected_point_is_unique_up_to_a_rotation():
    net, gauge = pair(4)
    other = copy.deepcopy(net)
    act_(other, gauge, gauge.random(scale=1.0, seed=2))
    for m in (net, other):
        project_(m, gauge, TIGHT)
    rotation = torch.linalg.lstsq(net[0].weight.mT, other[0].weight.mT).solution.mT
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(4).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(rotation @ net[0].bias, other[0].bias, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(net[1].weight @ rotation.mT, other[1].weight, rtol=1e-8, atol=1e-10)


def test_a_second_projection_is_the_identity():
    net, gauge = pair(4, 2)
    project_(net, gauge, "minimal_norm")
    g = project_(net, gauge, "minimal_norm").steps[0][1]
    torch.testing.assert_close(g, GeneralLinear(4, 2).identity(), rtol=0, atol=1e-10)
    assert drift(net, gauge).total < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("zero", [0, 1])
def test_a_rank_deficient_block_is_untouched_and_its_neighbour_is_solved(dtype, zero):
    """LoRA starts with one factor 0: balancing it would shrink the other to 0."""
    net, gauge = pair(3, 2, bias=False)
    net.to(dtype)
    with torch.no_grad():
        (net[0].weight[:3] if zero == 0 else net[1].weight[:, :3]).zero_()
        net[1].weight[:, 4] = net[1].weight[:, 5]  # the second block keeps full rank on one side only …
        net[1].weight[:, 4] += 0.5 * torch.linspace(-1, 1, 6, dtype=dtype)  # … until here
    before = copy.deepcopy(net)
    g = project_(net, gauge, "minimal_norm").steps[0][1]
    assert torch.equal(g[0], torch.eye(3, dtype=torch.float64))
    assert torch.equal(net[0].weight[:3], before[0].weight[:3])
    assert torch.equal(net[1].weight[:, :3], before[1].weight[:, :3])
    a, b = moments(net.double(), 3, 2)
    torch.testing.assert_close(a[1], b[1], rtol=1e-5, atol=1e-6)
    assert relative(net[0].weight[3:], before[0].weight[3:]) > 1e-2


def test_a_block_without_full_rank_is_untouched():
    net, gauge = pair(3)
    with torch.no_grad():
        net[0].weight[2], net[0].bias[2] = net[0].weight[1], net[0].bias[1]
    before = copy.deepcopy(net)
    project_(net, gauge, "minimal_norm")
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before.parameters(), strict=True))


def test_a_block_coupled_to_scalings_and_shifts_is_on_the_slice_of_all():
    net, gauge, batch = build("bottleneck")
    act_(net, gauge, gauge.random(scale=1.0, seed=1))
    before = net(batch)
    project_(net, gauge, TIGHT)
    assert relative(net(batch), before) < 1e-13
    assert drift(net, gauge, TIGHT).total < 1e-8
    (mixing,) = [s for s in gauge.applied if isinstance(s, LinearSymmetry) and isinstance(s.group, GeneralLinear)]
    assert mixing.parameters == ("0.weight", "0.bias", "1.weight")
    vectors = torch.cat([net[0].weight, net[0].bias[:, None]], dim=1)
    torch.testing.assert_close(vectors @ vectors.mT, net[1].weight.mT @ net[1].weight, rtol=1e-7, atol=1e-8)
    incoming = net[1].weight.square().sum(1) + net[1].bias.square()
    torch.testing.assert_close(incoming, net[3].weight.square().sum(0), rtol=1e-7, atol=1e-8)
