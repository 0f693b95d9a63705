"""canonicalize: a copy with the same function, one for every orbit."""

import copy

import pytest
import torch

from gaugefix import act_, canonicalize, project_
from gaugefix.errors import SymmetryError
from tests.slices.attention_nets import ALL, any_net
from tests.slices.small_nets import build, relative

over_all = pytest.mark.parametrize("name", ALL)


@over_all
def test_the_copy_has_the_same_function_and_the_model_stays(name):
    net, gauge, batch = any_net(name, seed=1)
    state = copy.deepcopy(net.state_dict())
    form = canonicalize(net, gauge)
    assert relative(form(batch), net(batch)) < 1e-13
    assert all(torch.equal(tensor, state[label]) for label, tensor in net.state_dict().items())
    assert type(form) is type(net)


@over_all
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
def test_models_of_one_orbit_have_one_form(name, dtype, bound):
    net, gauge, _ = any_net(name, seed=1)
    net = net.to(dtype)
    other = copy.deepcopy(net)
    act_(other, gauge, gauge.random(0.3, seed=2, discrete=True, conditional=True))
    here, there = canonicalize(net, gauge), canonicalize(other, gauge)
    for (label, p), q in zip(here.named_parameters(), there.parameters(), strict=True):
        assert p.dtype == dtype
        assert float((p - q).detach().norm()) <= bound * float(p.detach().norm()) + 1e-9, label


def test_it_is_where_the_spectral_projection_leads():
    net, gauge, _ = any_net("like Llama")
    form = canonicalize(net, gauge)
    project_(net, gauge, "spectral")
    for p, q in zip(form.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-5)


def test_tied_weights_stay_tied():
    net, gauge, _ = any_net("like Llama, tied")
    form = canonicalize(net, gauge)
    assert form.head.weight is form.tokens.weight
    assert form.head.weight is not net.head.weight


def test_one_factor_that_is_zero_lets_the_other_be_normed():
    net, gauge, batch = build("bottleneck")
    with torch.no_grad():
        net[1].weight.zero_()
    other = copy.deepcopy(net)
    act_(other, gauge, gauge.random(0.3, seed=2, conditional=True))
    for p, q in zip(canonicalize(net, gauge).parameters(), canonicalize(other, gauge).parameters(), strict=True):
        torch.testing.assert_close(p @ p.T if p.ndim > 1 else p.norm(), q @ q.T if q.ndim > 1 else q.norm())
    assert relative(canonicalize(net, gauge)(batch), net(batch)) < 1e-13


def test_the_group_of_another_model_is_refused():
    net, _, _ = build("mlp")
    _, gauge, _ = build("residual")
    with pytest.raises(SymmetryError, match="discover it again"):
        canonicalize(net, gauge)
