"""What gauges gain on trained fields of the tests' own: python -m tests.ode.figures spiral|digits [method] [steps].

docs/evidence/neural_ode.py has the same for the runs of the recipe, and more.

Error of a fixed-step solver in equal steps over that with a gauge, at equal numbers of evaluations, relative to rk4 in
512 steps, on held-out inputs; the geometric mean of three seeds. Then what dopri5 takes with and without.
"""

import math
import sys
import time

import torch
from torchdiffeq import odeint

from gaugefix.ode import TimeGauge, fit_gauge
from tests.ode.fields import ENDS, fixed_steps, relative
from tests.ode.trained import trained

SEEDS = (0, 1, 2)
FAMILIES = ("time", "scalar", "diagonal", "linear")
SLICES = ("proper_time", "equidistribution")


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def reference(field, x):
    with torch.no_grad():
        return fixed_steps(field, x, 512)


def slice_gain(task, seed, slice, method="rk4", steps=8, points=64):
    """How many times smaller the error is on the grid of a slice, fitted to some inputs, on others."""
    field, x, held_out, _ = trained(task, seed)
    gauge, exact = TimeGauge(slice, method, steps).fit_(field, x[:points]), reference(field, held_out)
    moved = odeint(field, held_out, ENDS, method=method, options=gauge.options)[-1]
    return relative(fixed_steps(field, held_out, steps, method), exact) / relative(moved, exact)


def fit_gain(task, seed, family, method="rk4", steps=8, points=None):
    """The same with a fitted gauge; and the gauge."""
    field, x, held_out, _ = trained(task, seed)
    gauged, exact = fit_gauge(field, x[:points], method, steps, family), reference(field, held_out)
    moved = fixed_steps(gauged, held_out, steps, method)
    return relative(fixed_steps(field, held_out, steps, method), exact) / relative(moved, exact), gauged


class Counted:
    """A field that counts its evaluations."""

    def __init__(self, field):
        self.field, self.evaluations = field, 0

    def __call__(self, t, x):
        self.evaluations += 1
        return self.field(t, x)


def adaptive(field, x, exact, rtol=1e-5, **options):
    """Evaluations and error of dopri5."""
    counted = Counted(field)
    y = odeint(counted, x, ENDS, method="dopri5", rtol=rtol, atol=rtol / 10, options={"step_t": ENDS, **options})[-1]
    return counted.evaluations, relative(y, exact)


def row(*parts):
    sys.stdout.write(" ".join(map(str, parts)) + "\n")
    sys.stdout.flush()


def main(task, method="rk4", steps="8"):
    for slice in SLICES:
        gains = [slice_gain(task, seed, slice, method, int(steps)) for seed in SEEDS]
        row(task, method, steps, slice, f"{geometric_mean(gains):.2f}", [round(gain, 2) for gain in gains])
    for family in FAMILIES:
        begun = time.process_time()
        found = [fit_gain(task, seed, family, method, int(steps)) for seed in SEEDS]
        seconds, gains = (time.process_time() - begun) / len(SEEDS), [gain for gain, _ in found]
        mean = f"{family} {geometric_mean(gains):.2f}"
        row(task, method, steps, mean, [round(gain, 2) for gain in gains], f"{seconds:.0f} s each")
    for seed, (_, gauged) in zip(SEEDS, found, strict=True):
        field, x, held_out, _ = trained(task, seed)
        exact = reference(field, held_out)
        clock = TimeGauge("equidistribution", method, int(steps)).fit_(field, x[:64])
        for rtol in (1e-3, 1e-5):
            plain, fitted = adaptive(field, held_out, exact, rtol), adaptive(gauged, held_out, exact, rtol)
            warped = adaptive(clock.warp(field), held_out, exact, rtol, jump_t=clock.knots[1:-1])
            row(task, "dopri5", f"{rtol:.0e}", *(f"{n} evaluations {e:.1e};" for n, e in (plain, fitted, warped)))


if __name__ == "__main__":
    main(*sys.argv[1:])
