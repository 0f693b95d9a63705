"""A model computed one layer at a time, in float64, is the model."""

import pytest
import torch
from torch import nn

from gaugefix.sharding import Streamed
from gaugefix.symmetry import named_tensors
from gaugefix.testing import relative_change
from gaugefix.testing.double_precision import double_precision


class Positions(nn.Module):
    """A parameter of its own, one that is used twice, and a statistic."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.randn(5, 8))
        self.embed, self.norm, self.head = nn.Embedding(7, 8), nn.BatchNorm1d(5), nn.Linear(8, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.norm(self.embed(x) + self.place))


def encoder():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.TransformerEncoder(layer, 2), torch.randn(3, 5, 8)


CASES = {
    "mlp": lambda: (nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)), torch.randn(3, 8)),
    "positions": lambda: (Positions(), torch.randint(0, 7, (3, 5))),
    "encoder": encoder,
}


@pytest.mark.parametrize("kind", CASES)
@torch.no_grad()
def test_the_outputs_are_those_of_the_model_in_float64(kind):
    torch.manual_seed(0)
    model, x = CASES[kind]()
    streamed = Streamed(model.eval()).eval()
    streamed.values = named_tensors(model)
    wide = x.double() if x.is_floating_point() else x
    with double_precision("cpu"):
        found = streamed(wide)
    assert not list(streamed.parameters())
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert found.dtype == torch.float64
    assert relative_change([model.double()(wide)], [found]) < 1e-14


def test_few_parameters_are_there_at_once():
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(5)])
    streamed, most = Streamed(model), []
    structure = streamed._hidden[0]
    for layer in structure:
        layer.register_forward_hook(lambda *_: most.append(sum(not p.is_meta for p in structure.parameters())))
    streamed.values = named_tensors(model)
    with torch.no_grad():
        streamed(torch.randn(2, 4).double())
    assert max(most) <= 2
    assert all(p.is_meta for p in structure.parameters())
