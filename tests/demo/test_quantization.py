import copy

import pytest
import torch
from torch import nn

from gaugefix.demo.corpus import VOCABULARY
from gaugefix.demo.quantization import QuantizationError, int8, layer_errors, losses, projections, report
from gaugefix.demo.quantization_table import as_markdown
from gaugefix.demo.rotary_decoder import RotaryDecoder


@pytest.fixture
def model() -> RotaryDecoder:
    torch.manual_seed(0)
    return RotaryDecoder(width=8, layers=2, heads=2, kv_heads=1, context=6).eval()


@pytest.fixture
def batches() -> list:
    generator = torch.Generator().manual_seed(0)
    return [tuple(torch.randint(VOCABULARY, (2, n, 6), generator=generator)) for n in (3, 2)]


def test_rounding_is_to_the_nearest_of_255_levels():
    x = torch.randn(50, 30, dtype=torch.float64)
    step = x.abs().max() / 127
    rounded = int8(x)
    assert float((rounded / step - (rounded / step).round()).abs().max()) < 1e-9
    assert float((rounded - x).abs().max()) <= float(step) / 2
    assert len((rounded / step).round().unique()) <= 255


def test_whole_numbers_up_to_127_stay():
    x = torch.arange(-127.0, 128.0)
    assert torch.equal(int8(x), x)
    assert torch.equal(int8(torch.zeros(3)), torch.zeros(3))


@pytest.mark.parametrize("channel", [0, 1, -1])
def test_every_channel_has_its_own_scale(channel):
    x = torch.randn(4, 5)
    expected = torch.stack([int8(part) for part in x.unbind(channel)], channel)
    assert torch.equal(int8(x, channel), expected)


def test_rounding_per_tensor_feels_the_scale_of_a_channel_and_per_channel_does_not():
    x = torch.randn(4, 64, dtype=torch.float64)
    scaled = x * torch.tensor([1.0, 4.0, 16.0, 64.0], dtype=torch.float64)[:, None]
    assert torch.allclose(int8(scaled, 0) / scaled, int8(x, 0) / x)
    assert (int8(scaled) - scaled)[0].norm() > 10 * (int8(scaled, 0) - scaled)[0].norm()


def test_projections_of_every_block_are_found(model):
    roles = [role for role, _ in projections(model).values()]
    assert roles == ["q", "k", "v", "o"] * 2


def test_fused_projections_are_refused():
    with pytest.raises(QuantizationError, match=r"in Linear, got none\. Give a model whose projections"):
        projections(nn.Linear(3, 3))


@torch.no_grad()
def test_errors_are_those_of_the_definition(model, batches):
    rows = {row["layer"]: row for row in layer_errors(model, batches)}
    attention = model.blocks[0].attention
    x = model.blocks[0].norm1(model.embedding(torch.cat([tokens for tokens, _ in batches]))).flatten(0, 1)
    weight = attention.v.weight.detach()
    rounded = int8(weight, 0)
    found = rows["blocks.0.attention.v"]
    assert found["weight/channel"] == pytest.approx(float((rounded - weight).norm() / weight.norm()), rel=1e-5)
    change = (x @ rounded.T - x @ weight.T).norm() / (x @ weight.T).norm()
    assert found["output/channel"] == pytest.approx(float(change), rel=1e-4)
    y = (x @ weight.T).detach()
    assert found["activation/tensor"] == pytest.approx(float((int8(y) - y).norm() / y.norm()), rel=1e-4)
    assert all(0 < value < 0.05 for row in rows.values() for value in row.values() if isinstance(value, float))


def test_losses_are_of_the_rounded_model_and_the_model_comes_back(model, batches):
    state = copy.deepcopy(model.state_dict())
    found = losses(model, batches)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    for _, layer in projections(model).values():
        layer.weight.data = int8(layer.weight.data)
    assert losses(model, batches)["float"] == found["tensor"] != found["float"]


def test_report_averages_over_layers_and_reads_as_a_table(model, batches):
    found = report(model, batches)
    mine = [row["weight/tensor"] for row in found["layers"] if row["role"] == "k"]
    assert len(mine) == 2
    assert found["roles"]["k"]["weight/tensor"] == pytest.approx(sum(mine) / 2)
    lines = as_markdown({"as trained": found}).splitlines()
    (row,) = [line for line in lines if line.startswith("| as trained | k |")]
    assert float(row.split("|")[3]) == pytest.approx(100 * sum(mine) / 2, abs=6e-4)
