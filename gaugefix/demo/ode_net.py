"""An augmented neural ODE: a linear encoder, the flow of a field, a linear decoder."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from gaugefix.demo.extras import require
from gaugefix.demo.output_grid import output_grid
from gaugefix.demo.tanh_field import TanhField
from gaugefix.errors import FieldError, did_you_mean

Adaptive = Literal["dopri5", "dopri8", "bosh3", "adaptive_heun"]
Solver = Literal["euler", "midpoint", "rk4", "dopri5", "dopri8", "bosh3", "adaptive_heun"]


class OdeNet(nn.Module):
    """x₀ = E u + e, dx/dt = f(t, x) from t = 0 to 1, y = D x(t) + d.

    Args:
        inputs: size of u.
        outputs: size of y.
        dimension: of the state x; more than ``inputs`` gives the flow room (augmentation).
        hidden: units of the field.
        horizon: None for y at t = 1 only; h for y at the times 1/h, 2/h, … 1.
        autonomous: whether the field does not see t.
        solver: euler, midpoint or rk4 with fixed steps, or dopri5, dopri8, bosh3 or adaptive_heun.
        steps: of a fixed-step solver, at least one from output to output. An adaptive one gives states at so many
            times, and takes steps of its own; its adjoint starts anew at each.
        adjoint: whether gradients come from the adjoint equation, which stores no graph.
        rtol: relative tolerance of an adaptive solver.
        atol: its absolute tolerance.

    Attributes:
        times: 0 and the times of the outputs.
        grid: the times of the steps, (steps + 1,); equal steps at first.
        reads: which of them are the times of the outputs.

    Raises:
        FieldError: an unknown solver, or numbers that make no sense.
    """

    times: Tensor
    grid: Tensor
    reads: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        dimension: int,
        hidden: int,
        horizon: int | None = None,
        autonomous: bool = False,
        solver: Solver = "rk4",
        steps: int = 8,
        adjoint: bool = False,
        rtol: float = 1e-4,
        atol: float = 1e-5,
    ) -> None:
        super().__init__()
        if solver not in get_args(Solver):
            raise FieldError(
                f"Expected a method of torchdiffeq for solver, got '{solver}'. {did_you_mean(solver, get_args(Solver))}"
            )
        segments = 1 if horizon is None else horizon
        if min(inputs, outputs, dimension, hidden, segments) < 1 or rtol <= 0 or atol <= 0:
            raise FieldError(
                "Expected positive numbers for inputs, outputs, dimension, hidden, horizon, rtol and atol, got "
                f"{inputs}, {outputs}, {dimension}, {hidden}, {horizon}, {rtol} and {atol}."
            )
        if steps < segments:
            raise FieldError(
                f"Expected at least one step from output to output for steps, got {steps} for {segments}. Give more."
            )
        self.encoder = nn.Linear(inputs, dimension)
        self.field = TanhField(dimension, hidden, autonomous)
        self.decoder = nn.Linear(dimension, outputs)
        self.horizon, self.solver, self.steps, self.adjoint = horizon, solver, steps, adjoint
        self.rtol, self.atol = rtol, atol
        self.register_buffer("times", torch.linspace(0, 1, segments + 1))
        self.register_buffer("grid", self.times.clone())
        self.register_buffer("reads", torch.arange(segments + 1))
        self.set_clock(torch.linspace(0, 1, steps + 1))

    @property
    def adaptive(self) -> bool:
        """Whether the solver chooses its own steps."""
        return self.solver in get_args(Adaptive)

    def forward(self, u: Tensor) -> Tensor:
        """Return y, shape (batch, outputs), or (batch, horizon, outputs) if there is one, for u (batch, inputs)."""
        return self.read(self.path(u)[1])

    def path(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the times of the steps, and the states at these times, (steps + 1, batch, dimension)."""
        if u.shape[-1] != self.encoder.in_features:
            raise FieldError(
                f"Expected inputs of shape (batch, {self.encoder.in_features}) for the model, got {tuple(u.shape)}. "
                "Make the sizes of the model those of the data."
            )
        return self.grid, self.solve(self.encoder(u), self.grid)

    def read(self, states: Tensor) -> Tensor:
        """Return the outputs that a path of states leads to."""
        if self.horizon is None:
            last: Tensor = self.decoder(states[-1])
            return last
        forecast: Tensor = self.decoder(states[self.reads[1:]])
        return forecast.transpose(0, 1)

    def solve(self, x: Tensor, times: Tensor) -> Tensor:
        """Return the states at ``times``, (times, batch, dimension), from x at the first.

        Fixed steps go from each time to the next.
        """
        torchdiffeq = require("torchdiffeq", "a neural ODE")
        odeint = torchdiffeq.odeint_adjoint if self.adjoint else torchdiffeq.odeint
        tolerances = {"rtol": self.rtol, "atol": self.atol} if self.adaptive else {}
        states: Tensor = odeint(self.field, x, times, method=self.solver, **tolerances)
        return states

    @torch.no_grad()
    def set_clock(self, knots: Tensor) -> None:
        """Let the steps be equal by another clock: as knots is given, or as near as the times of the outputs allow.

        The clock runs evenly from each knot to the next. From output to output the steps are equal by it, and there are
        as many of them, at least one, as its share of the whole.

        Args:
            knots: rising times from 0 to 1, shape (knots,).

        Raises:
            FieldError: other times.
        """
        grid, reads = output_grid(self.times.double(), knots.double(), self.steps)
        self.grid = grid.to(self.grid)
        self.reads = reads.to(self.reads)
