import torch

from gaugefix.ode import AffineGauge, integrate, temporal_gauge
from tests.ode.fields import inputs, linear, relative

LATTICE = integrate(linear(), torch.linspace(0, 1, 17, dtype=torch.float64))


def test_nothing_is_left_between_the_ends():
    free, fixed = temporal_gauge(LATTICE), temporal_gauge(LATTICE, free_end=False)
    assert float(free.lattice.action()) < 1e-20
    assert float((fixed.lattice.links[:-1] - torch.eye(5)).abs().max()) < 1e-12
    assert torch.equal(fixed.frames[-1], torch.eye(5).double())


def test_the_decoder_takes_what_the_end_frame_gives():
    x, decoder = inputs(n=4), torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()
    u = LATTICE.holonomy()
    output = (x @ u[:-1, :-1].mT + u[:-1, -1]) @ decoder.mT
    absorbed = temporal_gauge(LATTICE).frames[-1].inverse()  # D G_L⁻¹, acting on what did not move, x(0)
    assert relative((x @ absorbed[:-1, :-1].mT + absorbed[:-1, -1]) @ decoder.mT, output) < 1e-12


def test_constant_frames_are_what_is_left():
    lattice = temporal_gauge(LATTICE).lattice
    matrix = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double()
    constant = AffineGauge(lambda t: matrix + 0 * t).frames(LATTICE.times)
    assert float(lattice.transform(constant).action()) < 1e-20
    moving = AffineGauge(lambda t: torch.eye(4).double() * torch.exp(t)).frames(LATTICE.times)
    assert float(lattice.transform(moving).action()) > 0.1
