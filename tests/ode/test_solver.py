import pytest
import torch

from gaugefix.errors import FieldError
from gaugefix.ode.solver import METHODS, method_of, solve, solve_stages, stage_times
from tests.ode.fields import fixed_steps, flow, inputs, orders, pendulum, relative

TIMES = torch.tensor([0.0, 0.3, 0.4, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("method", METHODS)
def test_stages_known_in_advance_give_what_torchdiffeq_gives(method):
    at = stage_times(TIMES, method)
    found = solve_stages(lambda k, i, x: pendulum(at[k, i], x), inputs(), TIMES, method)
    assert relative(found, solve(pendulum, inputs(), TIMES, method)) < 1e-15
    assert relative(found, flow(pendulum, inputs())) > 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_the_orders_are_right(method):
    reference = flow(pendulum, inputs())
    errors = [relative(fixed_steps(pendulum, inputs(), n, method), reference) for n in (32, 64, 128)]
    assert orders(errors) == pytest.approx([method_of(method).order] * 2, abs=0.3)


def test_other_methods_are_refused():
    with pytest.raises(FieldError, match=r"Expected a fixed-step method for method, got 'dopri5'\."):
        stage_times(TIMES, "dopri5")
