"""Section 5 of arXiv 2402.02362, executed: the attention tensor of docs/attention_tensor.md and its two groups."""

import copy

import pytest
import torch
from torch import nn

import gaugefix
from gaugefix import act_
from gaugefix.groups import GeneralLinear
from gaugefix.symmetry import Element
from tests.paper.attention_page import (
    BLOCKS,
    HEADS,
    PAGE,
    Attend,
    D,
    attend,
    attention_tensor,
    layer,
    over_biases,
    tensor_of,
)
from tests.slices.small_nets import relative


class Shortcut(Attend):
    def forward(self, x):
        return x + super().forward(x)


class TensorOf(Attend):
    def forward(self):
        return attention_tensor(self.attention).flatten()


def test_the_page_runs():
    names: dict = {}
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), names)
    assert len(BLOCKS) == 3


@over_biases
@pytest.mark.parametrize("heads", [1, 2, 3])
def test_the_tensor_alone_gives_the_output(bias, heads):
    model, _, x = layer(bias, heads)
    assert tensor_of(model).shape == (heads, D, D + 1, D + 1, D + 1)
    assert relative(attend(tensor_of(model), x), model(x)) < 1e-13


def test_without_softmax_the_layer_is_the_cubic_form():
    model, _, x = layer(bias=False)
    w_q, w_k, w_v = model.attention.in_proj_weight.detach().view(3, HEADS, -1, D)
    q, k, v = (torch.einsum("had,btd->bhta", w, x) for w in (w_q, w_k, w_v))
    heads = (q @ k.mT / (D // HEADS) ** 0.5) @ v
    expected = model.attention.out_proj(heads.transpose(1, 2).flatten(2))
    cubic = tensor_of(model)[:, :, 1:, 1:, 1:].sum(0)
    assert relative(torch.einsum("ijkl,btj,buk,bul->bti", cubic, x, x, x), expected) < 1e-13


@over_biases
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_gauge_group_leaves_the_tensor(bias, seed):
    model, gauge, _ = layer(bias)
    before = tensor_of(model)
    weight = model.attention.in_proj_weight.detach().clone()
    act_(model, gauge, gauge.random(scale=0.7, seed=seed))
    assert relative(tensor_of(model), before) < 1e-12
    assert relative(model.attention.in_proj_weight, weight) > 0.1


def test_every_symmetry_leaves_the_tensor_and_no_part_of_one_does():
    """Negative control: what moves one parameter of a symmetry and leaves the others changes the tensor."""
    model, gauge, x = layer()
    before, output = tensor_of(model), model(x)
    for s in (s for s in gauge.applied if s.group.dimension):
        moved, value = copy.deepcopy(model), gauge.random(scale=0.7, seed=1).values[s.name]
        act_(moved, gauge, Element(((s.name, value),)))
        assert relative(tensor_of(moved), before) < 1e-12
        for left in s.parameters if len(s.parameters) > 1 else ():
            half = copy.deepcopy(moved)
            half.get_parameter(left).data.copy_(model.get_parameter(left))
            assert relative(tensor_of(half), before) > 1e-2, (s.name, left)
            assert relative(half(x), output) > 1e-3, (s.name, left)


def test_an_exchange_of_heads_exchanges_their_tensors():
    model, gauge, x = layer()
    before, output = tensor_of(model), model(x)
    order = torch.arange(HEADS).roll(1)
    act_(model, gauge, Element((("attention:heads", order),)))
    assert relative(tensor_of(model), before[order]) < 1e-12
    assert relative(tensor_of(model), before) > 1e-2
    assert relative(model(x), output) < 1e-12


@pytest.mark.parametrize("role", range(3), ids=["queries", "keys", "values"])
def test_one_projection_alone_is_no_gauge(role):
    """GL(d_k) on the queries without its inverse transpose on the keys, and so on."""
    model, _, x = layer()
    before, output = tensor_of(model), model(x)
    g = GeneralLinear(D // HEADS, HEADS).random(0.7, torch.Generator().manual_seed(1))
    with torch.no_grad():
        weight = model.attention.in_proj_weight.view(3, HEADS, -1, D)
        weight[role] = g @ weight[role]
    assert relative(tensor_of(model), before) > 1e-2
    assert relative(model(x), output) > 1e-3


@over_biases
def test_the_tensor_forgets_the_gauge_and_nothing_else(bias):
    """The rank of the map from weights to tensors is the number of parameters minus the dimension of the group."""
    model, gauge, _ = layer(bias)
    shell = TensorOf(bias).double()
    names, parameters = zip(*model.named_parameters(), strict=True)
    sizes = [p.numel() for p in parameters]

    def tensor(flat):
        parts = {n: part.view_as(p) for n, part, p in zip(names, flat.split(sizes), parameters, strict=True)}
        return torch.func.functional_call(shell, parts, ())

    flat = torch.cat([p.detach().reshape(-1) for p in parameters])
    singular = torch.linalg.svdvals(torch.func.jacrev(tensor)(flat))
    rank = sum(sizes) - gauge.dimension
    assert gauge.dimension == 2 * HEADS * (D // HEADS) ** 2 + 2 * D * bias
    assert singular[rank - 1] > 1e-4 * singular[0]
    assert singular[rank] < 1e-12 * singular[0]


def covariant(tensor, a):
    """A on the velocity index, A⁻¹ on the three position indices; the constant component stays."""
    inverse = torch.block_diag(torch.eye(1, dtype=a.dtype), torch.linalg.inv(a))
    return torch.einsum("im,hmnop,nj,ok,pl->hijkl", a, tensor, inverse, inverse, inverse)


@over_biases
def test_a_linear_diffeomorphism_acts_on_the_tensor_and_on_the_weights(bias):
    model, _, x = layer(bias)
    a = GeneralLinear(D).random(0.7, torch.Generator().manual_seed(4))[0]
    there = copy.deepcopy(model)
    with torch.no_grad():
        there.attention.in_proj_weight.copy_(model.attention.in_proj_weight @ torch.linalg.inv(a))
        there.attention.out_proj.weight.copy_(a @ model.attention.out_proj.weight)
        if bias:
            there.attention.out_proj.bias.copy_(a @ model.attention.out_proj.bias)
    expected = model(x) @ a.T
    assert relative(there(x @ a.T), expected) < 1e-12
    assert relative(attend(covariant(tensor_of(model), a), x @ a.T), expected) < 1e-12
    assert relative(tensor_of(there), covariant(tensor_of(model), a)) < 1e-12
    assert relative(model(x @ a.T), expected) > 0.1


def test_the_diffeomorphism_of_the_stream_is_found_as_a_gauge_symmetry():
    """Both layers of a stack without norms are conjugated by one A, and the network stays."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, D), Shortcut(), Shortcut(), nn.Linear(D, 2)).double()
    x = torch.randn(4, 5, 3, dtype=torch.float64)
    gauge = gaugefix.discover(net, (x,))
    (stream,) = (s for s in gauge.applied if s.group == GeneralLinear(D))
    assert gaugefix.verify(net, gauge, (x,)).error < 1e-12
    element = gauge.select(lambda s: s is stream).random(scale=0.7, seed=2)
    ((_, (a,)),) = element.steps
    output, tensors = net(x), [tensor_of(net[k]) for k in (1, 2)]
    act_(net, gauge, element)
    assert relative(net(x), output) < 1e-12
    for k, old in zip((1, 2), tensors, strict=True):
        assert relative(tensor_of(net[k]), covariant(old, a)) < 1e-12
        assert relative(tensor_of(net[k]), old) > 0.1
