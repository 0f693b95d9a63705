"""GL blocks of many symmetries in one batch: the same elements as one by one, and rounds where blocks meet."""

import pytest
import torch
from torch import nn

from gaugefix import declare
from gaugefix.groups import GeneralLinear
from gaugefix.slices import MinimalNorm
from gaugefix.slices.block import FLOOR, balance_blocks, full_rank
from gaugefix.slices.blocks import Blocks
from gaugefix.slices.parallel import over_batch
from gaugefix.slices.second_moment import second_moments
from gaugefix.symmetry import Exactness, Leg, LinearSymmetry


def moments(batch, n, seed=0, spread=1.0):
    """Second moments of random vectors, the vectors' axes stretched by exp(±spread)."""
    generator = torch.Generator().manual_seed(seed)
    stretch = torch.linspace(-spread, spread, n, dtype=torch.float64).exp()[:, None]
    turn = torch.linalg.qr(torch.randn(batch, n, n, generator=generator, dtype=torch.float64))[0]
    p = turn @ (stretch * torch.randn(batch, n, 3 * n, generator=generator, dtype=torch.float64))
    q = torch.randn(batch, n, 2 * n, generator=generator, dtype=torch.float64)
    return p @ p.mT, q @ q.mT


def layers(sizes, bias=True):
    """Pairs of linear maps, with the blocks (size, heads) of each pair between them."""
    torch.manual_seed(0)
    net = nn.ModuleDict()
    gauge = None
    for k, (n, heads) in enumerate(sizes):
        net[f"v{k}"], net[f"o{k}"] = nn.Linear(11, n * heads, bias=bias), nn.Linear(n * heads, 9)
    net.double()
    for k, (n, heads) in enumerate(sizes):
        vectors = {f"v{k}.weight": 0} | ({f"v{k}.bias": 0} if bias else {})
        more = {} if gauge is None else {"gauge": gauge}
        gauge = declare(net, GeneralLinear(n, heads), vectors, {f"o{k}.weight": 1}, **more)
    return net, gauge


def test_blocks_of_all_layers_together_are_those_of_each_alone():
    net, gauge = layers([(3, 2), (4, 1), (3, 5), (4, 2), (1, 3)])
    together = MinimalNorm().solve(gauge, gauge.check(net)).values
    assert set(together) == {s.name for s in gauge.applied}
    for s in gauge.applied:
        a, b = second_moments(s, gauge.check(net))
        alone, _ = balance_blocks(a, b)
        torch.testing.assert_close(together[s.name], alone, rtol=1e-13, atol=1e-14)


def test_moments_that_are_gathered_are_those_that_are_viewed():
    """Heads in order are a view; the same heads with their entries interleaved are gathered."""
    torch.manual_seed(0)
    weight = torch.randn(6, 7)
    order = torch.tensor([0, 2, 4, 1, 3, 5])
    for axis, tensor in ((0, weight), (1, weight.T.contiguous())):
        found = []
        for index, values in ((torch.arange(6), tensor), (order, tensor.index_select(axis, order))):
            shape = (6, 1) if axis == 0 else (1, 6)
            legs = (Leg("w", index.reshape(shape).numpy(), 1, axis),)
            s = LinearSymmetry("s", Exactness.EXACT, acting=GeneralLinear(3, 2), legs=legs)
            found.append(second_moments(s, {"w": values})[0])
        wide = weight.double().unflatten(0, (2, 3))
        torch.testing.assert_close(found[0], wide @ wide.mT)
        torch.testing.assert_close(found[1], found[0])


def test_shared_keys_of_several_query_heads_add_up():
    """Four query heads on two key heads: two copies of every block."""
    index = torch.tensor([0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5])
    weight = torch.randn(12, 5, dtype=torch.float64)
    legs = (Leg("q", index[:, None].numpy(), 1, 0),)
    s = LinearSymmetry("s", Exactness.EXACT, acting=GeneralLinear(3, 2), legs=legs)
    heads = weight.unflatten(0, (2, 2, 3))
    torch.testing.assert_close(second_moments(s, {"q": weight})[0], (heads @ heads.mT).sum(1))


def test_blocks_that_meet_go_in_different_rounds_and_fused_projections_in_one():
    torch.manual_seed(0)
    net = nn.ModuleDict({"a": nn.Linear(5, 3), "b": nn.Linear(3, 4), "c": nn.Linear(4, 2)}).double()
    gauge = declare(net, GeneralLinear(3), {"a.weight": 0}, {"b.weight": 1})
    gauge = declare(net, GeneralLinear(4), {"b.weight": 0}, {"c.weight": 1}, gauge=gauge)
    chain = Blocks([s for s in gauge.applied if isinstance(s, LinearSymmetry)])
    assert [len(round) for round in chain.rounds] == [1, 1]
    assert not chain.exact
    qkv = torch.full((18, 1), -1)
    parts = [qkv.clone() for _ in range(3)]
    for k, part in enumerate(parts):
        part[6 * k : 6 * k + 6, 0] = torch.arange(6)
    q, k, v = (p.numpy() for p in parts)
    queries = LinearSymmetry(
        "qk", Exactness.EXACT, acting=GeneralLinear(3, 2), legs=(Leg("qkv", q, 1), Leg("qkv", k, -1))
    )
    values = LinearSymmetry("v", Exactness.EXACT, acting=GeneralLinear(3, 2), legs=(Leg("qkv", v, 1), Leg("o", q, -1)))
    fused = Blocks([queries, values])
    assert fused.exact
    assert fused.shares == {"qk": 1.0, "v": 1.0}


def test_a_chain_of_blocks_reaches_the_slice_of_all():
    torch.manual_seed(0)
    net = nn.ModuleDict({"a": nn.Linear(7, 3), "b": nn.Linear(3, 3), "c": nn.Linear(3, 6)}).double()
    gauge = declare(net, GeneralLinear(3), {"a.weight": 0}, {"b.weight": 1})
    gauge = declare(net, GeneralLinear(3), {"b.weight": 0}, {"c.weight": 1}, gauge=gauge)
    tensors = {name: p.detach() for name, p in net.named_parameters()}
    for name, g in MinimalNorm(1e-12).solve(gauge, tensors).steps:
        tensors.update(gauge[name].act(tensors, g))
    a, b, c = (tensors[f"{name}.weight"] for name in "abc")
    torch.testing.assert_close(a @ a.T, b.T @ b, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(b @ b.T, c.T @ c, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0, 6.0])
def test_badly_conditioned_blocks_are_balanced_too(spread):
    a, b = moments(4, 6, spread=spread)
    g, size = balance_blocks(a, b)
    inverse = torch.linalg.inv(g)
    new_a, new_b = g @ a @ g.mT, inverse.mT @ b @ inverse
    assert float((new_a - new_b).norm() / new_a.norm()) < 1e-13 * torch.linalg.cond(a @ b).max().sqrt()
    torch.testing.assert_close(size, torch.linalg.eigvalsh(g).log().abs().amax(1), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("ratio", [1e-14, 1e-13, 1e-11, 1e-10])
def test_full_rank_is_decided_by_the_ratio_of_eigenvalues(ratio):
    turn = torch.linalg.qr(torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    values = torch.logspace(0, -2, 8, dtype=torch.float64)
    values[3] = ratio
    a = torch.eye(8, dtype=torch.float64).repeat(3, 1, 1)
    a[1] = (turn[1] * values) @ turn[1].T
    expected = ratio > FLOOR
    assert full_rank(a).tolist() == [True, expected, True]
    for first, second in ((a, moments(3, 8)[0]), (moments(3, 8)[0], a)):
        g, _ = balance_blocks(first, second)
        assert (not torch.equal(g[1], torch.eye(8, dtype=torch.float64))) == expected


def test_zero_moments_are_left_alone():
    a, b = moments(3, 4)
    b[1] = 0.0
    g, size = balance_blocks(a, b)
    assert torch.equal(g[1], torch.eye(4, dtype=torch.float64))
    assert float(size[1]) == 0.0
    assert float(size[0]) > 0.0


def test_a_batch_is_shared_out_over_threads_without_changing_the_result():
    a, b = moments(70, 5)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        shared = balance_blocks(a, b)
        assert torch.get_num_threads() == 3
        torch.set_num_threads(1)
        whole = balance_blocks(a, b)
    finally:
        torch.set_num_threads(before)
    for one, other in zip(shared, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_errors_in_a_thread_come_out():
    def fail(part):
        raise ValueError("no")

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(ValueError, match="no"):
            over_batch(fail, torch.zeros(64, 2))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
