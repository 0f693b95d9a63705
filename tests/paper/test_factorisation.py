"""Two factorisations of one attention tensor differ by an element of the gauge group, which can be found."""

import pytest
import torch

from gaugefix import act_
from gaugefix.groups import GeneralLinear
from gaugefix.symmetry import Element, ShiftSymmetry
from tests.paper.attention_page import HEADS, Attend, D, layer, over_biases, tensor_of
from tests.slices.small_nets import relative


def factorised(tensor, bias, seed):
    """Weights with this tensor, from its singular values; biases that it does not fix are drawn."""
    model = Attend(bias).double()
    n = D // HEADS
    value = tensor[:, :, 0, 0]
    score = torch.einsum("hijkl,hil->hjk", tensor, value) / value.square().sum((1, 2))[:, None, None]
    u, s, v = torch.linalg.svd(score[:, :, 1:] * n**0.5)
    query, key = (u[:, :, :n] * s[:, None, :n]).mT, v[:, :n]
    u, s, v = torch.linalg.svd(value[:, :, 1:])
    out, values = u[:, :, :n], s[:, :n, None] * v[:, :n]
    with torch.no_grad():
        model.attention.in_proj_weight.copy_(torch.cat([query[:, :, 1:], key, values]).reshape(3 * D, D))
        model.attention.out_proj.weight.copy_(out.transpose(0, 1).reshape(D, D))
        if bias:
            free = torch.randn(2, HEADS, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            model.attention.in_proj_bias.copy_(torch.cat([query[:, :, 0], *free]).reshape(-1))
            rest = value[:, :, 0] - torch.einsum("hic,hc->hi", out, free[1])
            model.attention.out_proj.bias.copy_(rest.sum(0))
    return model


def mixing_between(gauge, model, other):
    """The g of every head with g P = P', P one vector leg of each mixing: P' P⁺."""
    steps = []
    for s in (s for s in gauge.applied if isinstance(s.group, GeneralLinear)):
        leg = next(leg for leg in s.legs if leg.power == 1 and leg.parameter.endswith("weight"))
        (old, block), (new, _) = (s.vectors(leg, m.get_parameter(leg.parameter)) for m in (model, other))
        g = [
            new[:, block == b, :].flatten(0, 1).T @ torch.linalg.pinv(old[:, block == b, :].flatten(0, 1).T)
            for b in range(HEADS)
        ]
        steps.append((s.name, torch.stack(g)))
    return steps


def shift_between(gauge, model, other):
    """The shift that takes the biases of ``model`` to those of ``other``: its action is affine in the shift."""
    (s,) = (s for s in gauge.applied if isinstance(s, ShiftSymmetry))
    tensors = {n: model.get_parameter(n).detach() for n in s.reads}

    def moved(c):
        return torch.cat([s.act(tensors, c)[n].reshape(-1) for n in s.parameters])

    here = moved(torch.zeros(s.group.n, dtype=torch.float64))
    matrix = torch.stack([moved(unit) - here for unit in torch.eye(s.group.n, dtype=torch.float64)], 1)
    wanted = torch.cat([other.get_parameter(n).detach().reshape(-1) for n in s.parameters])
    return s.name, torch.linalg.lstsq(matrix, (wanted - here)[:, None]).solution[:, 0]


@over_biases
@pytest.mark.parametrize("seed", [0, 1])
def test_two_factorisations_differ_by_a_group_element(bias, seed):
    model, gauge, _ = layer(bias, seed=seed)
    other = factorised(tensor_of(model), bias, seed + 5)
    assert relative(tensor_of(other), tensor_of(model)) < 1e-12
    assert relative(other.attention.in_proj_weight, model.attention.in_proj_weight) > 0.1
    mixing = mixing_between(gauge, model, other)
    act_(model, gauge, Element(tuple(mixing)))
    if bias:
        act_(model, gauge, Element((shift_between(gauge, model, other),)))
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert relative(p, q) < 1e-11, name


def test_strangers_are_not_related():
    """The same search between layers of different tensors finds matrices that do not take one to the other."""
    (model, gauge, _), (other, _, _) = layer(seed=0), layer(seed=1)
    act_(model, gauge, Element(tuple(mixing_between(gauge, model, other))))
    assert relative(model.attention.in_proj_weight, other.attention.in_proj_weight) > 0.1
