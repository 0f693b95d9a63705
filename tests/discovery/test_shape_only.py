"""Tensors that only have the shape of another do not depend on it."""

import pytest
import torch
from torch import nn

import gaugefix
from gaugefix.discovery.capture import capture


class WithTime(nn.Module):
    """A hidden layer with a column that is made of the shape of another."""

    def __init__(self, make):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 4), nn.Linear(5, 4), nn.Linear(4, 2)
        self.make = make

    def forward(self, x):
        x = self.first(x)
        return self.last(torch.tanh(self.second(torch.cat([x, self.make(x)], -1))))


MAKERS = {
    "ones_like": lambda x: torch.ones_like(x[:, :1]),
    "zeros_like": lambda x: torch.zeros_like(x[:, :1]),
    "full_like": lambda x: torch.full_like(x[:, :1], 0.3),
    "new_ones": lambda x: x.new_ones(len(x), 1),
    "new_zeros": lambda x: x.new_zeros(len(x), 1),
    "new_full": lambda x: x.new_full((len(x), 1), 0.3),
}


@pytest.mark.parametrize("name", MAKERS)
def test_the_other_is_free_to_mix(name):
    model, args = WithTime(MAKERS[name]), (torch.randn(6, 3),)
    gauge = gaugefix.discover(model, args)
    assert "GL(4)" in {s.group.symbol for s in gauge.applied}
    assert gaugefix.verify(model, gauge, args).error < 1e-13
    (trace,) = capture(model, args)
    assert not any("slice" in str(node.target) for node in trace.nodes())


def test_numbers_that_are_looked_up_still_depend():
    """full_like with a value of the data is no constant."""
    model, args = WithTime(lambda x: x[:, :1].detach() * 0 + 1), (torch.randn(6, 3),)
    assert "GL(4)" not in {s.group.symbol for s in gaugefix.discover(model, args).applied}


def test_what_is_written_into_a_constant_counts():
    class Written(WithTime):
        def __init__(self):
            super().__init__(self.column)

        def column(self, x):
            made = torch.zeros_like(x)
            made += torch.relu(x)
            return made[:, :1]

    model, args = Written(), (torch.randn(6, 3),)
    gauge = gaugefix.discover(model, args)
    assert "GL(4)" not in {s.group.symbol for s in gauge.applied}
    assert gaugefix.verify(model, gauge, args).error < 1e-13


@pytest.mark.parametrize("dtype", [torch.long, torch.bool])
def test_whole_numbers_stay_as_they_are(dtype):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.last(torch.relu(self.first(x))) * torch.ones_like(x[:, :1], dtype=dtype)

    (trace,) = capture(Masked(), (torch.randn(6, 3),))
    assert any("ones_like" in str(node.target) for node in trace.nodes())
