import pytest
import torch

from gaugefix.errors import ConvergenceWarning, FieldError
from gaugefix.ode import (
    AffineGauge,
    LandauField,
    Lattice,
    holonomy,
    integrate,
    landau_gauge,
    landau_residual,
    temporal_gauge,
)
from tests.ode.fields import affine, linear, orders, relative


def times(layers):
    return torch.linspace(0, 1, layers + 1, dtype=torch.float64)


def lattice(layers=32, bias=True, seed=0):
    return integrate(linear(bias=bias, seed=seed), times(layers))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_it_converges_and_lowers_the_norm(bias, seed):
    before = lattice(bias=bias, seed=seed)
    after, frames = landau_gauge(before, tolerance=1e-8)
    assert landau_residual(before) > 0.1
    assert landau_residual(after) <= 1e-8
    assert float(after.action()) < 0.8 * float(before.action())
    assert relative(after.holonomy(), before.holonomy()) < 1e-12
    assert torch.equal(frames[0], torch.eye(5).double())
    assert torch.equal(frames[-1], torch.eye(5).double())


def test_no_small_frame_lowers_it_further():
    fixed = landau_gauge(lattice(), tolerance=1e-8).lattice
    for seed in range(5):
        for scale in (1e-3, 1e-1):
            frames = affine(seed=seed, scale=scale).frames(fixed.times)
            frames[:, :-1, -1] *= scale
            assert float(fixed.transform(frames).action()) > float(fixed.action())


def test_the_whole_orbit_has_the_same_point():
    moved = integrate(linear().transform(affine(scale=0.2)), times(32), 32)
    assert float(moved.action()) > 1.2 * float(lattice().action())
    one, two = (landau_gauge(start, tolerance=1e-9).lattice for start in (lattice(), moved))
    assert relative(two.links, one.links) < 1e-8


def test_uneven_times_are_as_good():
    uneven = integrate(linear(), times(32) ** 1.5)
    fixed = landau_gauge(uneven, tolerance=1e-8).lattice
    assert landau_residual(fixed) <= 1e-8
    assert float(fixed.action()) == pytest.approx(float(landau_gauge(lattice()).lattice.action()), rel=0.05)


def test_constant_rotations_are_what_is_left():
    fixed = landau_gauge(lattice(), tolerance=1e-8).lattice
    matrix = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double()
    rotation = torch.linalg.qr(matrix)[0]
    turned = fixed.transform(AffineGauge(lambda t: rotation + 0 * t).frames(fixed.times))
    assert landau_residual(turned) < 2e-8
    assert float(turned.action()) == pytest.approx(float(fixed.action()), rel=1e-12)
    assert landau_residual(fixed.transform(AffineGauge(lambda t: matrix + 0 * t).frames(fixed.times))) > 1e-2


def test_its_limit_is_the_closed_form():
    """∫‖W‖² of the lattice tends to that of the continuum, to first order in the spacing."""
    field = LandauField(holonomy(linear(bias=False))[:-1, :-1])
    limit = field.generator.square().sum()
    errors = [relative(landau_gauge(lattice(n, bias=False)).lattice.action(), limit) for n in (32, 64, 128)]
    assert orders(errors) == pytest.approx([1, 1], abs=0.1)


def test_the_limit_with_a_bias_obeys_its_equation():
    """Ẇ = [W, Wᵀ] + b bᵀ and ḃ = −Wᵀ b, by differences of the lattice."""

    def defect(layers):
        fixed = landau_gauge(lattice(layers), tolerance=1e-8).lattice
        a = (fixed.links - torch.eye(5)) * layers
        w, b = a[:, :-1, :-1], a[:, :-1, -1:]
        rate = (a[1:] - a[:-1]) * layers
        expected = w @ w.mT - w.mT @ w + b @ b.mT
        return float((rate[:, :-1, :-1] - expected[1:]).norm() / expected.norm()), float(
            (rate[:, :-1, -1:] + (w.mT @ b)[1:]).norm() / b.norm()
        )

    coarse, fine = defect(64), defect(128)
    assert fine[0] < 0.1
    assert orders([coarse[0], fine[0]]) == pytest.approx([1], abs=0.3)
    assert max(coarse[1], fine[1]) < 1e-5  # on the lattice too: b_{l−1} = U_lᵀ b_l


def test_what_is_on_the_slice_stays():
    still = Lattice.of_layers(torch.eye(3).double().repeat(4, 1, 1))
    assert torch.equal(landau_gauge(still).lattice.links, still.links)
    single = Lattice.of_layers(2 * torch.eye(3).double()[None])
    assert torch.equal(landau_gauge(single).lattice.links, single.links)


def test_from_temporal_gauge_with_all_in_the_last_layer():
    spread = landau_gauge(temporal_gauge(lattice(bias=False), free_end=False).lattice).lattice
    assert relative(spread.holonomy(), lattice(bias=False).holonomy()) < 1e-12
    assert landau_residual(spread) <= 1e-6


def test_a_limit_of_sweeps_is_told():
    with pytest.warns(ConvergenceWarning, match=r"residual of at most 1.0e-06 within 3 sweeps, got"):
        landau_gauge(lattice(), sweeps=3)


def test_float32_reaches_its_own_tolerance():
    narrow = Lattice(lattice().links.float(), times(32).float())
    fixed = landau_gauge(narrow, tolerance=1e-3).lattice
    assert relative(fixed.holonomy().double(), lattice().holonomy()) < 1e-5


@pytest.mark.parametrize("seed", range(3))
def test_the_closed_form_is_stationary_and_keeps_the_transport(seed):
    u = holonomy(linear(bias=False, seed=seed))[:-1, :-1]
    field = LandauField(u, interval=(0.5, 2.5))
    assert relative(holonomy(field, 0.5, 2.5, steps=256)[:-1, :-1], u) < 1e-10
    t = torch.tensor(1.2, dtype=torch.float64)
    w = field.weight(t)
    rate = (field.weight(t + 1e-4) - field.weight(t - 1e-4)) / 2e-4
    assert relative(rate, w @ w.mT - w.mT @ w) < 1e-6


def test_a_normal_transport_has_a_constant_field():
    rotation = torch.linalg.matrix_exp(torch.tensor([[0.1, -2.0], [2.0, 0.1]]).double())
    field = LandauField(rotation)
    assert relative(field.weight(torch.tensor(0.8).double()), torch.tensor([[0.1, -2.0], [2.0, 0.1]]).double()) < 1e-12


@pytest.mark.parametrize(
    ("transport", "message"),
    [
        (torch.diag(torch.tensor([1.0, -1.0])), r"positive determinant for transport, got -1"),
        (torch.ones(2, 3), r"square matrix for transport .* got \(2, 3\)"),
    ],
)
def test_transports_that_no_flow_gives_are_refused(transport, message):
    with pytest.raises(FieldError, match=message):
        LandauField(transport.double())
