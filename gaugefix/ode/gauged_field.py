"""Any field, seen through a time-dependent affine change of its state and a change of its clock."""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from gaugefix.errors import FieldError, did_you_mean
from gaugefix.ode.clock import clock
from gaugefix.ode.field import Field, one_time

Family = Literal["time", "scalar", "diagonal", "linear"]


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
    ) -> None:
        super().__init__()
        if family not in get_args(Family):
            raise FieldError(f"Expected a family for family, got {family!r}. {did_you_mean(family, get_args(Family))}")
        if n < 1 or waves < 1 or not interval[0] < interval[1]:
            raise FieldError(
                f"Expected n >= 1, waves >= 1 and t0 < t1 for interval, got {n}, {waves} and {tuple(interval)}."
            )
        self.field, self.family, self.interval = field, family, interval
        shape = {"time": (waves, 0), "scalar": (waves, 1), "diagonal": (waves, n), "linear": (waves, n, n)}[family]
        self.register_buffer("pace", torch.zeros(waves, dtype=dtype))
        self.register_buffer("generators", torch.zeros(shape, dtype=dtype))
        self.register_buffer("shifts", torch.zeros(waves, 0 if family == "time" else n, dtype=dtype))

    def forward(self, s: Tensor, y: Tensor) -> Tensor:
        """Return dy/ds, shape (..., n), for s of shape () and y of shape (..., n)."""
        start, end = self.interval
        unit = (one_time(s, y) - start) / (end - start)
        tau, pace = clock(self.pace.to(y), unit)
        tau = start + (end - start) * tau
        if self.family == "time":
            return pace * self.field(tau, y)
        angles = torch.pi * torch.arange(1, len(self.shifts) + 1).to(y)
        waves = torch.sin(angles * unit) / angles * torch.pi
        rates = torch.cos(angles * unit) * torch.pi / (end - start)
        shift, shift_rate = waves @ self.shifts.to(y), rates @ self.shifts.to(y)
        generator = torch.tensordot(waves, self.generators.to(y), 1)
        generator_rate = torch.tensordot(rates, self.generators.to(y), 1)
        if self.family == "linear":
            g, g_rate = _exponential(generator, generator_rate)
            x = torch.linalg.solve(g, (y - shift).reshape(-1, len(g)).mT).mT.reshape(y.shape)
            moved: Tensor = x @ g_rate.mT + shift_rate + pace * self.field(tau, x) @ g.mT
            return moved
        scale = generator.exp()
        x = (y - shift) / scale
        scaled: Tensor = generator_rate * (y - shift) + shift_rate + pace * scale * self.field(tau, x)
        return scaled


def _exponential(generator: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """The exponential of X and its derivative along Ẋ, both from exp([[X, Ẋ], [0, X]])."""
    n = len(generator)
    upper = torch.cat([generator, rate], 1)
    lower = torch.cat([torch.zeros_like(generator), generator], 1)
    both = torch.linalg.matrix_exp(torch.cat([upper, lower], 0))
    return cast("Tensor", both[:n, :n]), cast("Tensor", both[:n, n:])
