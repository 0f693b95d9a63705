"""Examples are short: what is found on one must hold for longer inputs too."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.discovery.architectures import Net, parameter
from tests.discovery.attention_parts import ending, sound, x

X, LONG = (x(5),), (x(9),)


def test_a_sum_over_positions_passes_no_shift():
    """It would count the positions of the example."""
    net = Net(lambda s, x: s.b(s.a(x).sum(1)), a=nn.Linear(6, 4), b=nn.Linear(4, 3))
    assert not ending(sound(net, X, LONG), "shift")


def test_a_mean_over_positions_does():
    net = Net(lambda s, x: s.b(s.a(x).mean(1)), a=nn.Linear(6, 4), b=nn.Linear(4, 3))
    assert [s.dimension for s in ending(sound(net, X, LONG), "shift")] == [4]


@pytest.mark.parametrize("read", ["slice", "lookup"])
def test_a_table_that_is_read_in_part(read):
    """All rows of positions may shift against the tokens, the unread ones too, or none."""

    def forward(s, ids):
        n = ids.shape[1]
        positions = s.table[:n] if read == "slice" else F.embedding(torch.arange(n), s.table)
        return s.o(F.gelu(s.a(s.tokens(ids) + positions)))

    net = Net(forward, tokens=nn.Embedding(7, 4), table=parameter(9, 4), a=nn.Linear(4, 4), o=nn.Linear(4, 3))
    sound(net, *[(torch.arange(2 * n).reshape(2, n) % 7,) for n in (3, 6, 9)])


@pytest.mark.parametrize("read", ["slice", "lookup"])
def test_a_table_that_is_read_whole(read):
    def forward(s, ids):
        n = ids.shape[1]
        positions = s.table[:n] if read == "slice" else F.embedding(torch.arange(n), s.table)
        return s.o(F.gelu(s.a(s.tokens(ids) + positions)))

    net = Net(forward, tokens=nn.Embedding(7, 4), table=parameter(9, 4), a=nn.Linear(4, 4), o=nn.Linear(4, 3))
    gauge = sound(net, *[(torch.arange(2 * n).reshape(2, n) % 7,) for n in (9, 6, 3)])
    assert sum(s.dimension for s in ending(gauge, "shift")) == 4 + 4
