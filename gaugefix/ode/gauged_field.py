"""Any field, seen through a time-dependent affine change of its state and a change of its clock."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from gaugefix.errors import FieldError, did_you_mean
from gaugefix.ode.clock import clock
from gaugefix.ode.field import Field, one_time

Family = Literal["time", "scalar", "diagonal", "linear"]


class Frames(NamedTuple):
    """The gauge at some times s: τ and τ′, (times,); g, g⁻¹ and ġg⁻¹, (times, n, n) or their diagonals; c and ċ."""

    time: Tensor
    pace: Tensor
    matrix: Tensor
    inverse: Tensor
    rate: Tensor
    shift: Tensor
    shift_rate: Tensor


class GaugedField(nn.Module):
    """The field of y = g(s) x + c(s) by the clock τ(s), around any field f(τ, x).

        dy/ds = ġ g⁻¹ (y − c) + ċ + τ′ g f(τ, g⁻¹(y − c)),

    with g = exp(Σ_k sin(kπs) A_k/k), c = Σ_k sin(kπs) c_k/k and :func:`clock`, so trivial at both ends for
    all coefficients: the flow map from end to end is that of f (Theorem 1), without a solver's error. With such an
    error it is not, and :func:`fit_gauge` looks for coefficients where it is small.

    Coefficients are buffers: they go into checkpoints and are not trained with the field's parameters. All zero, as at
    the start, it is f itself.

    Args:
        field: f(t, x) → (..., n); asked for whole batches.
        n: dimension of the state.
        family: what A_k may be: ``"time"`` none, ``"scalar"`` multiples of 1, ``"diagonal"``, ``"linear"`` any matrix.
            All but ``"time"`` have shifts c_k.
        waves: number of k's.
        interval: t₀ and t₁; s runs over the same interval.
        dtype: of the coefficients.
        clock_waves: number of coefficients of the clock; ``waves`` by default.

    Raises:
        FieldError: an unknown family, or sizes that make no sense.

    Example:
        >>> gauged = GaugedField(lambda t, x: -x, n=2, family="linear")
        >>> gauged(torch.tensor(0.5), torch.ones(3, 2))[0]
        tensor([-1., -1.])
    """

    pace: Tensor
    generators: Tensor
    shifts: Tensor

    def __init__(
        self,
        field: Field,
        n: int,
        family: Family = "linear",
        waves: int = 3,
        interval: tuple[float, float] = (0.0, 1.0),
        dtype: torch.dtype = torch.float64,
        clock_waves: int | None = None,
    ) -> None:
        super().__init__()
        if family not in get_args(Family):
            raise FieldError(f"Expected a family for family, got {family!r}. {did_you_mean(family, get_args(Family))}")
        clock_waves = waves if clock_waves is None else clock_waves
        if n < 1 or waves < 1 or clock_waves < 1 or not interval[0] < interval[1]:
            raise FieldError(
                "Expected n >= 1, waves >= 1, clock_waves >= 1 and t0 < t1 for interval, got "
                f"{n}, {waves}, {clock_waves} and {tuple(interval)}."
            )
        self.field, self.family, self.interval = field, family, interval
        shape = {"time": (waves, 0), "scalar": (waves, 1), "diagonal": (waves, n), "linear": (waves, n, n)}[family]
        self.register_buffer("pace", torch.zeros(clock_waves, dtype=dtype))
        self.register_buffer("generators", torch.zeros(shape, dtype=dtype))
        self.register_buffer("shifts", torch.zeros(waves, 0 if family == "time" else n, dtype=dtype))

    def forward(self, s: Tensor, y: Tensor) -> Tensor:
        """Return dy/ds, shape (..., n), for s of shape () and y of shape (..., n)."""
        frames = self.frames(one_time(s, y).reshape(1))
        return self.velocity(Frames(*(part[0] for part in frames)), y)

    def velocity(self, frame: Frames, y: Tensor) -> Tensor:
        """Return dy/ds, shape (..., n), at y of shape (..., n) and one time, as a frame without the axis of times."""
        if self.family == "time":
            return frame.pace * self.field(frame.time, y)
        offset = y - frame.shift
        if self.family == "linear":
            moved = self.field(frame.time, offset @ frame.inverse.mT) @ frame.matrix.mT
            return offset @ frame.rate.mT + frame.shift_rate + frame.pace * moved
        moved = frame.matrix * self.field(frame.time, offset * frame.inverse)
        return frame.rate * offset + frame.shift_rate + frame.pace * moved

    def frames(self, s: Tensor) -> Frames:
        """Return the gauge at many times at once, shape (times,): what takes as long as a small field itself."""
        start, end = self.interval
        unit = (s - start) / (end - start)
        tau, pace = clock(self.pace.to(s), unit)
        angles = torch.pi * torch.arange(1, len(self.shifts) + 1).to(s)
        waves = torch.sin(unit[:, None] * angles) / angles * torch.pi
        rates = torch.cos(unit[:, None] * angles) * torch.pi / (end - start)
        generator = torch.tensordot(waves, self.generators.to(s), 1)
        generator_rate = torch.tensordot(rates, self.generators.to(s), 1)
        if self.family == "linear":
            matrix, matrix_rate = _exponential(generator, generator_rate)
            inverse = torch.linalg.matrix_exp(-generator)
            rate = matrix_rate @ inverse
        else:
            matrix, inverse, rate = generator.exp(), (-generator).exp(), generator_rate
        shifts = self.shifts.to(s)
        return Frames(start + (end - start) * tau, pace, matrix, inverse, rate, waves @ shifts, rates @ shifts)


def _exponential(generator: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """The exponential of X and its derivative along Ẋ, (..., n, n), both from exp([[X, Ẋ], [0, X]])."""
    n = generator.shape[-1]
    upper = torch.cat([generator, rate], -1)
    lower = torch.cat([torch.zeros_like(generator), generator], -1)
    both = torch.linalg.matrix_exp(torch.cat([upper, lower], -2))
    return both[..., :n, :n], both[..., :n, n:]
