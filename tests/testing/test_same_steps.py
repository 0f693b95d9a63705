"""SameSteps: an adaptive solver repeats its steps."""

import sys
import threading

import pytest
import torch
import torchdiffeq
from torch import Tensor

from gaugefix.testing import SameSteps, relative_change

TIMES = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
ROTATION = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double())[0]
CHANGE = (ROTATION * torch.tensor([30.0, 1.0, 0.03]).double()) @ ROTATION.mT


class Swing:
    """A field in given coordinates, which notes when it is asked."""

    def __init__(self, change: Tensor) -> None:
        self.change, self.back, self.asked = change, torch.linalg.inv(change), []

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        self.asked.append(float(t))
        return self.change @ torch.sin(4 * torch.tanh(self.back @ x).roll(1) + t)

    def solve(self, **settings: object) -> Tensor:
        start = self.change @ torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64)
        return self.back @ torchdiffeq.odeint(self, start, TIMES, **settings).mT


PLAIN = torch.eye(3, dtype=torch.float64)
LOOSE = {"rtol": 1e-3, "atol": 1e-4}
ADAPTIVE = ["dopri5", "dopri8", "bosh3", "adaptive_heun", "fehlberg2"]


@pytest.mark.parametrize("method", [*ADAPTIVE, "implicit_adams"])
@pytest.mark.filterwarnings("ignore:Functional iteration did not converge:UserWarning")
def test_other_coordinates_give_the_same_to_rounding(method):
    steps, plain, changed = SameSteps(), Swing(PLAIN), Swing(CHANGE)
    settings = {"method": method, **LOOSE}
    if method == "implicit_adams":
        settings["options"] = {"step_size": 0.1}
    with steps.kept():
        first = plain.solve(**settings)
    with steps.kept():
        second = changed.solve(**settings)
    assert relative_change([first], [second]) < 1e-12
    assert relative_change([first], [changed.solve(**settings)]) > 1e-9  # a solver that chooses for itself


@pytest.mark.parametrize("method", ADAPTIVE)
def test_the_first_time_is_as_without(method):
    free, kept = Swing(CHANGE), Swing(CHANGE)
    expected = free.solve(method=method, **LOOSE)
    with SameSteps().kept():
        assert torch.equal(kept.solve(method=method, **LOOSE), expected)
    assert kept.asked == free.asked


@pytest.mark.parametrize("options", [{}, {"jump_t": torch.tensor([0.4, 0.77])}, {"step_t": torch.tensor([0.3])}])
def test_the_repetition_is_the_original(options):
    steps, field = SameSteps(), Swing(PLAIN)
    solved = []
    for _ in range(2):
        with steps.kept():
            solved.append(field.solve(method="dopri5", options=dict(options)))
    assert relative_change(solved[:1], solved[1:]) < 1e-14


def test_several_solves_are_told_apart():
    steps, field = SameSteps(), Swing(PLAIN)
    solved = []
    for _ in range(2):
        with steps.kept():
            solved.append([field.solve(**LOOSE), field.solve(rtol=1e-8)])
    assert relative_change(*solved) < 1e-14
    assert relative_change(solved[1][:1], solved[1][1:]) > 1e-7


def test_fixed_steps_and_events_are_left_alone():
    steps, field = SameSteps(), Swing(PLAIN)
    expected = field.solve(method="rk4"), until_zero(field)
    for _ in range(2):
        with steps.kept():
            assert torch.equal(field.solve(method="rk4"), expected[0])
            assert torch.equal(until_zero(field), expected[1])


def until_zero(field: Swing) -> Tensor:
    start = torch.ones(3, dtype=torch.float64)
    return torchdiffeq.odeint_event(field, start, TIMES[0], event_fn=lambda t, x: t - 0.5 + 0 * x.sum())[0]


def test_callbacks_of_the_field_are_still_told():
    class Listening(Swing):
        def callback_accept_step(self, t0: Tensor, y0: Tensor, dt: Tensor) -> None:
            self.asked.append("accepted")

    field = Listening(CHANGE)
    with SameSteps().kept():
        field.solve(**LOOSE)
    assert "accepted" in field.asked


def test_solvers_of_scipy_are_replaced():
    steps, plain, changed = SameSteps(), Swing(PLAIN), Swing(CHANGE)
    exact = plain.solve(method="scipy_solver", rtol=1e-9, atol=1e-9, options={"solver": "LSODA"})
    with steps.kept():
        first = plain.solve(method="scipy_solver", options={"solver": "LSODA"})
    with steps.kept():
        second = changed.solve(method="scipy_solver", options={"solver": "LSODA"})
    assert relative_change([exact], [first]) < 1e-6
    assert relative_change([first], [second]) < 1e-12


def test_other_threads_choose_their_own_steps():
    field, found = Swing(CHANGE), []
    steps = SameSteps()
    with steps.kept():
        field.solve(**LOOSE)
    expected = field.solve(rtol=1e-8)
    with steps.kept():
        thread = threading.Thread(target=lambda: found.append(field.solve(rtol=1e-8)))
        thread.start()
        thread.join()
    assert torch.equal(found[0], expected)


def test_without_torchdiffeq_nothing_happens(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "torchdiffeq"]:
        monkeypatch.delitem(sys.modules, name)
    with SameSteps().kept():
        assert "torchdiffeq" not in sys.modules
