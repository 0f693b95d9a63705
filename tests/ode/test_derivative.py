import pytest
import torch
from torch.func import vmap

from gaugefix.ode.derivative import derivative_along, with_rate


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_product_with_the_jacobian(dtype):
    generator = torch.Generator().manual_seed(0)
    a, x, v = (torch.randn(s, generator=generator, dtype=dtype) for s in ((3, 2), (2,), (2,)))

    def function(t, x):
        return 0.1 * t * t, torch.sin(a @ x) * t

    t = torch.tensor(0.5, dtype=dtype)
    (first, second), (rate, velocity) = derivative_along(function, (t, x), (torch.ones_like(t), v))
    assert {first.dtype, second.dtype, rate.dtype, velocity.dtype} == {dtype}
    assert torch.allclose(rate, 0.2 * t)
    assert torch.allclose(velocity, torch.sin(a @ x) + t * torch.cos(a @ x) * (a @ v), atol=1e-6)


def test_what_does_not_depend_on_time_has_no_rate():
    constant = torch.ones(2, 2)
    value, rate = vmap(lambda t: with_rate(lambda t: constant, t))(torch.zeros(3))
    assert torch.equal(value, constant.expand(3, 2, 2))
    assert not rate.any()
