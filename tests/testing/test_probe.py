"""The shipped law: what it catches, and that it leaves no trace."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import gaugefix
from gaugefix.errors import VerificationError
from gaugefix.testing import Probe, assert_invariant, relative_change, tolerance, tolerance_for
from gaugefix.testing.full_precision import full_precision
from gaugefix.testing.tolerance import least_precise

X = torch.randn(6, 4)


@pytest.mark.parametrize(
    ("dtype", "value"), [(torch.float32, 2.9e-6), (torch.float64, 5.3e-15), (torch.bfloat16, 0.19)]
)
def test_tolerance_is_a_multiple_of_eps(dtype, value):
    assert tolerance(dtype) == pytest.approx(value, rel=0.02)
    assert tolerance(dtype, n=4) == 2 * tolerance(dtype)


def test_the_least_precise_parameter_decides():
    assert least_precise(nn.Sequential(nn.Linear(2, 2).double(), nn.Linear(2, 2).half())) is torch.float16
    assert least_precise(nn.ReLU()) is torch.float32


def test_deep_networks_may_round_more():
    shallow, deep = (nn.Sequential(*(nn.Linear(2, 2) for _ in range(n))) for n in (32, 128))
    assert tolerance_for(shallow) == tolerance_for(nn.ReLU()) == tolerance(torch.float32)
    assert tolerance_for(deep) == 2 * tolerance(torch.float32)


def test_a_projection_passes_and_a_change_does_not():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    gauge = gaugefix.discover(net, (X,))
    assert 0.0 < assert_invariant(net, (X,), lambda: gaugefix.project_(net, gauge, "minimal_norm")) < 1e-6

    @torch.no_grad()
    def spoil():
        net[0].weight.mul_(1.0 + 1e-4)

    with pytest.raises(
        VerificationError, match=r"unchanged outputs of Sequential, got a relative change of \d.* 2\.9e-06"
    ):
        assert_invariant(net, (X,), spoil)
    assert assert_invariant(net, (X,), spoil, rtol=1e-3) > 1e-6


class Restless(nn.Module):
    """Changes buffers, draws random numbers and asks for its mode."""

    def __init__(self):
        super().__init__()
        self.linear, self.drop, self.norm = nn.Linear(4, 4), nn.Dropout(), nn.BatchNorm1d(4)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("other", torch.zeros(2))

    def forward(self, x):
        self.calls += 1
        self.other = self.other + 1
        return self.norm(self.drop(self.linear(x))) + torch.randn(4)


def test_a_probe_leaves_no_trace():
    model = Restless()
    model.drop.eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    buffers = dict(model.named_buffers())
    modes = {name: module.training for name, module in model.named_modules()}
    generator = torch.get_rng_state()
    probe = Probe(model, (X,))
    first, second = probe(), probe()
    assert torch.equal(first[0], second[0])
    assert not first[0].requires_grad
    assert torch.equal(generator, torch.get_rng_state())
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert all(buffer is dict(model.named_buffers())[name] for name, buffer in buffers.items())
    assert modes == {name: module.training for name, module in model.named_modules()}


def test_a_failing_forward_leaves_no_trace_either():
    model = Restless()
    with pytest.raises(RuntimeError):
        Probe(model, (torch.randn(3, 7),))()
    assert model.training
    assert float(model.calls) == 0.0


@dataclass
class Output:
    logits: torch.Tensor
    extra: dict


def test_outputs_may_be_nested():
    class Nested(nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            return Output(y, {"a": [y + 1, "text"], "b": (y.argmax(1), None)})

    outputs = Probe(Nested(4, 2), (), {"x": X})()
    assert [tuple(t.shape) for t in outputs] == [(6, 2), (6, 2), (6,)]


def test_relative_change():
    one = torch.tensor([3.0, 4.0])
    assert relative_change([one], [one]) == 0.0
    assert relative_change([one], [one + torch.tensor([0.0, 0.5])]) == pytest.approx(0.1)
    assert relative_change([one, one], [one, 2 * one]) == pytest.approx(1.0)
    assert relative_change([torch.zeros(2)], [torch.full((2,), 0.5)]) == pytest.approx(math.sqrt(0.5))
    assert relative_change([torch.tensor([1, 2])], [torch.tensor([2, 1])]) == 0.0  # an argmax
    assert relative_change([torch.tensor([1j])], [torch.tensor([1j + 0.5])]) == pytest.approx(0.5)
    assert relative_change([torch.full((2,), 300.0, dtype=torch.half)] * 2, [torch.full((2,), 330.0).half()] * 2) > 0.09


def test_infinite_outputs_must_stay_where_they_are():
    masked = torch.tensor([1.0, -math.inf, math.nan])
    assert relative_change([masked], [masked.clone()]) == 0.0
    assert relative_change([masked], [torch.tensor([1.1, -math.inf, math.nan])]) == pytest.approx(0.1)
    assert relative_change([masked], [torch.tensor([1.0, 2.0, math.nan])]) == math.inf
    assert relative_change([torch.ones(1)], [torch.tensor([math.nan])]) == math.inf


def test_rough_arithmetic_is_off_for_a_while_and_then_as_before():
    before = torch.backends.cudnn.conv.fp32_precision
    torch.set_float32_matmul_precision("high")
    try:
        with full_precision("cpu"), torch.autocast("cpu", dtype=torch.bfloat16, enabled=True):
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
            assert torch.backends.cudnn.conv.fp32_precision == "ieee"
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.conv.fp32_precision == before
    finally:
        torch.set_float32_matmul_precision("highest")


def test_autocast_is_off_inside_a_probe():
    net = nn.Linear(4, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(X).dtype == torch.bfloat16
        assert Probe(net, (X,))()[0].dtype == torch.float32


def test_the_package_says_what_it_ships():
    import gaugefix.testing as shipped

    assert {"assert_invariant", "randomise_", "redundancy", "tolerance"} <= set(shipped.__all__)
    assert all(hasattr(shipped, name) for name in shipped.__all__)
