import torch
from torch.func import jacrev

from gaugefix.ode.clock import clock

COEFFICIENTS = torch.tensor([1.2, -0.8, 0.5], dtype=torch.float64)


def test_it_keeps_both_ends_and_rises():
    ends = [float(clock(COEFFICIENTS, torch.tensor(s).double())[0]) for s in (0.0, 1.0)]
    assert abs(ends[0]) < 1e-15
    assert abs(ends[1] - 1) < 1e-14
    rates = torch.stack([clock(COEFFICIENTS, s)[1] for s in torch.linspace(0, 1, 50).double()])
    assert 0 < float(rates.min()) < 0.5
    assert float(rates.max()) > 1.5


def test_its_rate_is_its_derivative():
    for s in torch.linspace(0.05, 0.95, 7, dtype=torch.float64):
        derivative = jacrev(lambda s: clock(COEFFICIENTS, s)[0])(s)
        assert abs(float(derivative - clock(COEFFICIENTS, s)[1])) < 1e-12


def test_the_integral_is_exact_to_rounding():
    s = torch.tensor(0.37, dtype=torch.float64)
    grid = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    rate = torch.exp(
        torch.cos(grid[:, None] * torch.pi * torch.tensor([1, 2, 3])) @ (COEFFICIENTS / torch.tensor([1, 2, 3]))
    )
    expected = torch.trapezoid(rate[:37_001], grid[:37_001]) / torch.trapezoid(rate, grid)
    assert abs(float(clock(COEFFICIENTS, s)[0] - expected)) < 1e-9


def test_many_waves_of_good_size_and_many_times_at_once():
    coefficients = 2 * torch.randn(8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    s = torch.linspace(0, 1, 9, dtype=torch.float64)
    tau, rate = clock(coefficients, s)
    assert torch.equal(torch.stack([clock(coefficients, at)[0] for at in s]), tau)
    slope = torch.stack([jacrev(lambda s: clock(coefficients, s)[0])(at) for at in s])
    assert float((slope / rate - 1).abs().max()) < 1e-7
    assert bool((tau.diff() > 0).all())
