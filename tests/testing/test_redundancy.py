"""redundancy: against nullities that are known in closed form."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gaugefix.errors import GaugeError
from gaugefix.testing.redundancy import randomise_, redundancy
from tests.discovery.architectures import Net, act, chain, parameter, rows


@pytest.mark.parametrize(("n", "k", "m"), [(4, 2, 3), (3, 3, 3), (5, 1, 4)])
def test_product_of_two_matrices(n, k, m):
    """Rank-k maps n → m form a manifold of dimension k(n + m − k): k² directions are redundant."""
    found = redundancy(chain(nn.Linear(n, k, False), nn.Linear(k, m, False)), rows(n), draws=2)
    assert found.nullity == k * k
    assert found.parameters == k * (n + m)


@pytest.mark.parametrize("bias", [True, False])
def test_one_hidden_layer_has_one_scale_per_unit(bias):
    assert redundancy(chain(nn.Linear(4, 5, bias), act(), nn.Linear(5, 3, bias)), rows(4), draws=2).nullity == 5


def test_no_redundancy_has_an_infinite_gap():
    found = redundancy(nn.Linear(4, 3), rows(4), draws=1)
    assert (found.nullity, found.gap) == (0, float("inf"))


def test_two_biases_in_a_row():
    net = Net(lambda s, x: s.a(x) + s.b, a=nn.Linear(4, 3), b=parameter(3))
    assert redundancy(net, rows(4), draws=1).nullity == 3


def test_unused_parameters_are_redundant_and_frozen_ones_do_not_count():
    net = Net(lambda s, x: s.a(x), a=nn.Linear(4, 3), spare=nn.Linear(2, 2))
    found = redundancy(net, rows(4), draws=1)
    assert (found.nullity, found.parameters) == (6, 15 + 6)
    net.a.requires_grad_(False)
    assert redundancy(Net(lambda s, x: s.b(s.a(x)), a=net.a, b=nn.Linear(3, 2)), rows(4), draws=1).parameters == 8


def test_train_and_eval_mode_differ_by_the_bias_before_a_batch_norm():
    model = chain(nn.Linear(4, 3), nn.BatchNorm1d(3, eps=0.05), nn.GELU(), nn.Linear(3, 2))
    assert redundancy(model, rows(4), mode="train", draws=2).nullity == 3
    # Frozen statistics make the norm an affine map: a scale and a shift for every channel.
    assert redundancy(model, rows(4), mode="eval", draws=2).nullity == 6


def test_shared_parameters_count_once():
    model = chain(nn.Linear(4, 4, False), act(), nn.Linear(4, 4, False))
    model[2].weight = model[0].weight
    assert redundancy(model, rows(4), draws=1).parameters == 16


def test_inputs_may_be_drawn_by_a_function():
    def batch(n: int) -> tuple[torch.Tensor, ...]:
        return (torch.randn(n, 4).abs(),)

    # For positive inputs and weights a ReLU is the identity: the whole GL(3) is there, and the shifts.
    net = Net(lambda s, x: s.o(F.relu(s.a(x).abs())), a=nn.Linear(4, 3), o=nn.Linear(3, 2))
    assert redundancy(net, batch, draws=2).nullity >= 3


class Float32Norm(nn.Module):
    """An RMS norm that computes in float32 whatever its input is, as many language models have it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.to(torch.float32)
        return self.gain * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 0.05)).to(x.dtype)


def test_casts_to_float32_inside_the_model_leave_the_gap():
    model = chain(nn.Linear(6, 5), Float32Norm(5), nn.Linear(5, 3))
    found = redundancy(model, rows(6), draws=1)
    # The gains against the next weight, and the rotations of the norm's input.
    assert found.nullity == 5 + 10
    assert found.gap > 1e8


def test_dropout_inside_a_function_is_off():
    net = Net(lambda s, x: s.o(F.dropout(s.a(x), 0.5)), a=nn.Linear(4, 3), o=nn.Linear(3, 2))
    # What is left is an affine map 4 → 2, with 10 dimensions.
    assert redundancy(net, rows(4), mode="train", draws=1).nullity == 15 + 8 - 10


def test_samples_beyond_the_default_change_nothing():
    net = chain(nn.Linear(4, 5), act(), nn.Linear(5, 3))
    assert [redundancy(net, rows(4), samples=n, draws=1).nullity for n in (60, 400)] == [5, 5]


def test_the_generator_and_the_model_are_left_alone():
    model = chain(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).train()
    before, state = {n: v.clone() for n, v in model.state_dict().items()}, torch.get_rng_state()
    redundancy(model, rows_of_zeros(), draws=1)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())
    assert model.training


def rows_of_zeros() -> tuple[torch.Tensor, ...]:
    return (torch.zeros(5, 4),)


def test_singular_values_without_a_gap_are_refused():
    """Singular values 1, 10⁻¹, …, 10⁻¹³: every direction does almost, but not quite, nothing."""

    class Graded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.zeros(14))
            self.register_buffer("mixed", torch.linalg.qr(torch.randn(14, 14).double()).Q)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            powers = torch.logspace(0, -13, 14, dtype=torch.float64)
            return x @ (powers[:, None] * self.mixed) @ self.a

    with pytest.raises(GaugeError, match="Expected a clear gap in the singular values of the Jacobian, got a ratio of"):
        redundancy(Graded(), rows(14), draws=1)


class TestRandomise:
    def test_nothing_special_is_left(self):
        model = chain(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.LayerNorm(3))
        nn.init.zeros_(model[0].bias)
        randomise_(model)
        for values in (model[0].bias, model[1].weight, model[1].bias, model[1].running_mean, model[2].weight):
            assert len(values.unique()) == 3
        assert bool((model[1].running_var > 0).all())
        assert float((model[1].running_var - 1).abs().min()) > 0

    def test_reproducible_and_tied_parameters_stay_tied(self):
        one, two = (chain(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(2))
        for model in (one, two):
            model[1].weight = model[0].weight
            randomise_(model, seed=3)
        assert torch.equal(one[0].weight, two[0].weight)
        assert one[1].weight is one[0].weight
