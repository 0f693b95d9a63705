"""The structure of a module, for tracing: shapes and buffers, no values, hooks or trainers."""

import torch
from torch import nn

import gaugefix
from gaugefix.sharding import structure_of


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 5), nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight
        self.layers = [nn.Linear(5, 5), nn.ReLU()]  # a list that registers nothing, and a second name for a module
        self.inner = nn.Sequential(*self.layers, nn.BatchNorm1d(5))
        self.inner[0].bias.requires_grad_(False)
        self.register_buffer("mask", torch.tensor([True, False]))

    def forward(self, x):
        return self.head(self.inner(self.embed(x)))


def test_shapes_ties_and_buffers_stay():
    model = Tied()
    model.inner[0].register_forward_hook(lambda *_: None)
    found = structure_of(model)
    assert [(n, p.shape, p.requires_grad) for n, p in found.named_parameters()] == [
        (n, p.shape, p.requires_grad) for n, p in model.named_parameters()
    ]
    assert found.head.weight is found.embed.weight
    assert found.layers[0] is found.inner[0]
    assert torch.equal(found.mask, model.mask)
    assert not found.inner[0]._forward_hooks
    assert len(model.inner[0]._forward_hooks) == 1
    mine, theirs = ({t.data_ptr() for t in m.state_dict().values()} for m in (found, model))
    assert not mine & theirs


def test_the_same_group_is_found():
    model, inputs = Tied(), (torch.tensor([1, 2, 3]),)
    assert str(gaugefix.discover(structure_of(model), inputs)) == str(gaugefix.discover(model, inputs))
