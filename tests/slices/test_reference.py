"""The reference slice: the reference itself where it lies on the orbit, else a nearest point; never further away."""

import copy

import pytest
import torch
from torch import nn

from gaugefix import act_, declare, drift, project_
from gaugefix.errors import SliceError
from gaugefix.groups import PositiveScaling
from gaugefix.slices import Reference, get_slice, slice_names
from gaugefix.testing import randomise_
from tests.slices.attention_nets import any_net
from tests.slices.small_nets import build, relative

NETS = ["like GPT-2", "like Llama", "post-norm encoder", "grouped queries", "mlp", "odd", "gated", "residual conv",
        "flattened", "bottleneck", "normed"]  # fmt: skip
over_nets = pytest.mark.parametrize("name", NETS)


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def apart(net, other):
    return sum(float((p - q).square().sum()) for p, q in zip(net.parameters(), other.parameters(), strict=True)) ** 0.5


@over_nets
def test_a_reference_on_the_orbit_is_reached(name):
    net, gauge, batch = any_net(name)
    other = copy.deepcopy(net)
    act_(other, gauge, gauge.random(0.3, seed=5, discrete=True, conditional=True))
    assert apart(net, other) > 0.1
    before = other(batch)
    project_(other, gauge, Reference(net))
    assert relative(other(batch), before) < 1e-11
    for (label, p), q in zip(net.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(q, p, rtol=0, atol=1e-8 * (1.0 + float(p.abs().max())), msg=label)


@pytest.mark.parametrize("name", [name for name in NETS if name != "like GPT-2"])
@pytest.mark.parametrize("noise", [0.01, 0.3])
@pytest.mark.filterwarnings("ignore::gaugefix.errors.ConvergenceWarning")
def test_the_distance_never_grows_and_the_function_stays(name, noise):
    net, gauge, batch = any_net(name)
    gauge = gauge.select(lambda s: not s.conditional)
    reference = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(0)
    for p in reference.parameters():
        p += noise * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    act_(net, gauge, gauge.random(0.1, seed=3, conditional=True))
    before, far = net(batch), apart(net, reference)
    project_(net, gauge, Reference(reference, rounds=2, tolerance=1e-3))
    assert relative(net(batch), before) < 1e-11
    assert apart(net, reference) < far or name == "odd"  # its signs are right already
    assert apart(net, reference) <= far


def test_at_the_reference_nothing_moves():
    net, gauge, _ = any_net("mlp")
    slice = Reference(net)
    assert float(slice.residual(gauge, gauge.check(net))) == 0.0
    assert drift(net, gauge, slice).total < 1e-7
    before = copy.deepcopy(net)
    project_(net, gauge, slice)
    assert apart(net, before) < 1e-12


def test_scales_agree_with_a_general_optimiser():
    """Coupled layers, a reference off the orbit: L-BFGS over all log-scales finds nothing nearer."""
    net, gauge, _ = build("mlp")
    gauge = gauge.select(lambda s: isinstance(s.group, PositiveScaling))
    reference = copy.deepcopy(net)
    randomise_(reference, 7)
    names = dict(net.named_parameters())
    u = [torch.zeros(s.group.n, dtype=torch.float64, requires_grad=True) for s in gauge.applied]
    optimiser = torch.optim.LBFGS(u, max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def distance():
        tensors = {name: p.detach() for name, p in names.items()}
        for s, part in zip(gauge.applied, u, strict=True):
            tensors.update(s.act(tensors, part.exp()))
        return sum((tensors[name] - p.detach()).square().sum() for name, p in reference.named_parameters())

    def closure():
        optimiser.zero_grad()
        loss = distance()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(closure)
    project_(net, gauge, Reference(reference, tolerance=1e-12, rounds=1000))
    assert apart(net, reference) ** 2 <= float(distance()) * (1 + 1e-6)


def test_the_residual_tells_a_nearest_point_from_others():
    net, gauge, _ = build("bottleneck")
    reference = copy.deepcopy(net)
    randomise_(reference, 7)
    slice = Reference(reference, tolerance=1e-9, rounds=1000)
    away = float(slice.residual(gauge, gauge.check(net)))
    project_(net, gauge, slice)
    assert float(slice.residual(gauge, gauge.check(net))) < 1e-4 * away


def test_a_state_dict_serves_and_is_copied():
    net, gauge, _ = build("mlp", torch.float32)
    state = net.state_dict()
    slice = Reference(state)
    before = copy.deepcopy(net)
    act_(
        net, gauge, gauge.random(0.3, seed=1, discrete=True, conditional=True)
    )  # the state dict moves along, the copy does not
    project_(net, gauge, slice)
    assert apart(net, before) < 1e-5


def test_without_a_reference_the_mend_is_named():
    net, gauge, _ = build("mlp")
    assert "reference" in slice_names()
    message = r"Expected a reference point for slice 'reference', got none\. Give Reference\(model\)"
    with pytest.raises(SliceError, match=message):
        project_(net, gauge, "reference")
    with pytest.raises(SliceError, match=message):
        get_slice("reference").residual(gauge, gauge.check(net))


def test_a_reference_of_another_architecture_is_refused():
    net, gauge, _ = build("mlp")
    with pytest.raises(SliceError, match=r"shape \(7,\) for '2\.bias' of the reference, got \(9,\)"):
        project_(net, gauge, Reference(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 9))))
    with pytest.raises(SliceError, match=r"'0\.bias' of the reference, got none"):
        project_(net, gauge, Reference({}))


def test_a_scale_whose_nearest_point_is_infinitely_far_is_left_alone():
    """P → λP with P·P₀ < 0 and nothing on the other side would shrink to zero."""
    net = nn.Linear(3, 2, bias=False).double()
    gauge = declare(net, PositiveScaling(2), {"weight": 0}, {})
    before = net.weight.clone()
    project_(net, gauge, Reference({"weight": -before}))
    assert torch.equal(net.weight, before)
