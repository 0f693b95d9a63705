import pytest
import torch

from gaugefix.errors import FieldError
from gaugefix.ode import LandauField, Lattice, LinearField, holonomy, integrate, landau_gauge, sample, temporal_gauge
from tests.ode.fields import affine, flow, inputs, linear, orders, relative

TIMES = torch.linspace(0, 1, 33, dtype=torch.float64)


def test_it_is_the_flow_map():
    x, u = inputs(n=4), holonomy(linear())
    assert relative(x @ u[:-1, :-1].mT + u[:-1, -1], flow(linear(), x)) < 1e-9


def test_its_integrator_is_of_sixth_order():
    reference = holonomy(linear(), steps=256)
    errors = [relative(holonomy(linear(), steps=steps), reference) for steps in (4, 8, 16, 32)]
    assert orders(errors) == pytest.approx([6, 6, 6], abs=0.1)
    assert errors[-1] < 1e-9


def test_what_does_not_change_is_exact_in_one_step():
    a = linear().connection(torch.tensor(0.0).double())[:-1, :-1]
    assert relative(holonomy(LinearField(lambda t: a), steps=1)[:-1, :-1], torch.linalg.matrix_exp(a)) < 1e-14


def lattice(bias=True):
    return integrate(linear(bias=bias), TIMES)


PROJECTIONS = {
    "gauge transformation": lambda: integrate(linear().transform(affine()), TIMES, 32).holonomy(),
    "lattice gauge": lambda: lattice().transform(affine().frames(TIMES)).holonomy(),
    "landau": lambda: landau_gauge(lattice()).lattice.holonomy(),
    "temporal, fixed end": lambda: temporal_gauge(lattice(), free_end=False).lattice.holonomy(),
    "temporal, free end": lambda: temporal_gauge(lattice()).frames[-1].inverse(),
}


@pytest.mark.parametrize("name", PROJECTIONS)
def test_no_projection_changes_it(name):
    assert relative(PROJECTIONS[name](), lattice().holonomy()) < 1e-10


def test_nor_does_landau_gauge_in_the_continuum():
    u = holonomy(linear(bias=False))[:-1, :-1]
    assert relative(holonomy(LandauField(u), steps=256)[:-1, :-1], u) < 1e-10


def test_gauges_that_move_the_ends_do():
    """Negative control; it becomes G(T) U G(0)⁻¹."""
    gauge, before = affine(ends="free"), lattice().holonomy()
    after = integrate(linear().transform(gauge), TIMES, 32).holonomy()
    assert relative(after, before) > 0.1
    ends = gauge.frames(TIMES)
    assert relative(after, ends[-1] @ before @ ends[0].inverse()) < 1e-10


def test_layers_that_are_sampled_miss_it():
    errors = [relative(sample(linear(), TIMES[:: 2**k]).holonomy(), holonomy(linear())) for k in (1, 0)]
    assert errors[-1] > 1e-3
    assert orders(errors) == pytest.approx([1], abs=0.2)


@pytest.mark.parametrize("times", [[0.0], [1.0, 0.0], [0.0, 0.0]])
def test_times_must_rise(times):
    with pytest.raises(FieldError, match="at least two rising times"):
        integrate(linear(), torch.tensor(times).double())


@pytest.mark.parametrize(
    ("links", "message"),
    [
        (torch.eye(3).repeat(2, 1, 1), r"Expected shape \(1, n \+ 1, n \+ 1\) for links, got \(2, 3, 3\)"),
        (torch.ones(1, 3, 3), r"Expected last rows \(0, …, 0, 1\) for links, got \[1.0, 1.0, 1.0\] among them"),
    ],
)
def test_lattices_check_themselves(links, message):
    with pytest.raises(FieldError, match=message):
        Lattice(links, torch.tensor([0.0, 1.0]))


def test_frames_are_checked():
    with pytest.raises(FieldError, match=r"Expected shape \(33, n \+ 1, n \+ 1\) for frames, got \(2, 5, 5\)"):
        lattice().transform(torch.eye(5).repeat(2, 1, 1))
    with pytest.raises(FieldError, match=r"Expected shapes \(layers, n, n\) and \(layers, n\) for weights and biases"):
        Lattice.of_layers(torch.ones(2, 3, 3), torch.ones(2, 2))
    with pytest.raises(FieldError, match="rising times"):
        Lattice(torch.eye(2)[None], torch.tensor([1.0, 0.0]))
