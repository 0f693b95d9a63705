"""The training of a neural ODE, whatever it is to predict."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import AdamW

from gaugefix.demo.ode_net import OdeNet, Solver
from gaugefix.demo.run_summary import write_summary
from gaugefix.demo.solver_error import solver_error
from gaugefix.ode import kinetic

HELD_OUT = 64
"""Rows of the validation batch on which the solver is checked."""


class NeuralODE(LightningModule):
    """AdamW on the loss of the outputs, plus a multiple of the kinetic energy if that is asked for.

    Logs ``train/loss`` (without the kinetic term), ``train/kinetic``, ``train/nfe`` and, with the adjoint,
    ``train/nfe_backward``; ``val/loss``, ``val/nfe`` and ``val/solver_error``. An NFE is one evaluation of the field
    for a batch. The summary gets ``nfe``, ``nfe_backward`` and ``solver_error``.

    Args:
        inputs: numbers per input.
        outputs: numbers per output.
        horizon: None for one output at t = 1; h for one each at 1/h, 2/h, … 1.
        dimension: of the state.
        hidden: units of the field.
        autonomous: whether the field does not see the time.
        solver: euler, midpoint or rk4 with fixed steps; dopri5, dopri8, bosh3 or adaptive_heun.
        solver_steps: steps of a fixed-step solver; see :class:`OdeNet`.
        adjoint: gradients by the adjoint equation, which stores no graph.
        rtol: relative tolerance of an adaptive solver.
        atol: its absolute tolerance.
        lr: learning rate.
        weight_decay: of AdamW.
        kinetic: weight of the kinetic energy ∫E|f|² dt in the loss; 0 for none.
        kinetic_relative: take log (energy / displacement²) instead, which a smaller state does not lower.
    """

    example_input_array: Tensor
    monitor: ClassVar[str] = "val/loss"
    monitor_mode: ClassVar[str] = "min"

    def __init__(
        self,
        inputs: int,
        outputs: int,
        horizon: int | None = None,
        dimension: int = 16,
        hidden: int = 64,
        autonomous: bool = False,
        solver: Solver = "rk4",
        solver_steps: int = 8,
        adjoint: bool = False,
        rtol: float = 1e-4,
        atol: float = 1e-5,
        lr: float = 3e-3,
        weight_decay: float = 0.0,
        kinetic: float = 0.0,
        kinetic_relative: bool = False,
    ) -> None:
        super().__init__()
        self.net = OdeNet(
            inputs, outputs, dimension, hidden, horizon, autonomous, solver, solver_steps, adjoint, rtol, atol
        )
        self.example_input_array = torch.linspace(-1, 1, 4 * inputs).reshape(4, inputs)
        self.lr = lr
        self.weight_decay = weight_decay
        self.kinetic = kinetic
        self.kinetic_relative = kinetic_relative
        self.held_out: Tensor | None = None
        self._solved = 0
        self._headline: dict[str, float] = {}

    def forward(self, u: Tensor) -> Tensor:
        outputs: Tensor = self.net(u)
        return outputs

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch of outputs."""
        raise NotImplementedError

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        u, targets = batch
        begun = self.net.field.evaluations
        times, states = self.net.path(u)
        loss = self.loss(self.net.read(states), targets)
        self._log_nfe("train/nfe", self.net.field.evaluations - begun, len(u))
        self.log("train/loss", loss, batch_size=len(u))
        if self.kinetic:
            energy = kinetic(self.net.field, times, states, self.kinetic_relative)
            self.log("train/kinetic", energy, batch_size=len(u))
            loss = loss + self.kinetic * energy
        self._solved = self.net.field.evaluations
        return loss

    def on_after_backward(self) -> None:
        """Log what the adjoint equation cost."""
        if self.net.adjoint:
            self._log_nfe("train/nfe_backward", self.net.field.evaluations - self._solved, 1)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        u, targets = batch
        if batch_idx == 0:
            self.held_out = u[:HELD_OUT]
        begun = self.net.field.evaluations
        outputs = self(u)
        self._log_nfe("val/nfe", self.net.field.evaluations - begun, len(u))
        self.log("val/loss", self.loss(outputs, targets), batch_size=len(u), prog_bar=self.monitor == "val/loss")
        self.log_outputs(outputs, targets)

    def log_outputs(self, outputs: Tensor, targets: Tensor) -> None:
        """Log what else is to be known about a validation batch."""

    def on_validation_epoch_end(self) -> None:
        """Check the solver."""
        if self.held_out is not None:
            self._headline["solver_error"] = error = solver_error(self.net, self.held_out)
            self.log("val/solver_error", error)

    def on_train_end(self) -> None:
        """Write the headline numbers of the solver to every summary."""
        for logger in self.trainer.loggers:
            write_summary(logger, self.headline)

    @property
    def headline(self) -> dict[str, float]:
        """NFE of the last training step, forward and backward, and the last solver error."""
        return {name.removeprefix("train/"): value for name, value in self._headline.items() if "val/" not in name}

    def configure_optimizers(self) -> Any:
        return AdamW(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)

    def _log_nfe(self, name: str, count: int, rows: int) -> None:
        self._headline[name] = count
        self.log(name, float(count), batch_size=rows)
