"""TimeGrid: let a neural ODE take its steps by a clock on a slice of the gauge of time."""

from __future__ import annotations

import copy
import time
import warnings
from collections import deque
from typing import Any, get_args

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from gaugefix.demo.ode_net import OdeNet
from gaugefix.demo.run_summary import write_summary
from gaugefix.errors import FieldError, ProjectionWarning, SettingError, did_you_mean
from gaugefix.ode import TimeGauge
from gaugefix.ode.time_gauge import TimeSlice


class TimeGrid(Callback):
    """Fit the clock to the field before the first step and every ``every_n_steps`` steps, and integrate by it.

    The flow stays; the solver's error on it changes. The grid is a buffer of the network, so it is in its checkpoints.
    Between two fits the field moves on and the grid stays. Logs ``time/unevenness``, the root mean square of the
    logarithms of the steps relative to equal ones; the summary gets ``time_gauge_seconds``.

    Args:
        slice: 'equidistribution' (each step adds the same to the final error) or 'proper_time' (each step is equally
            long in space).
        every_n_steps: Optimizer steps between two fits.
        points: Inputs to fit on, the last of the training batches. The error of few trajectories outweighs that of all
            others, so that some dozens do not stand for the rest.

    Attributes:
        fits: Fits made.
        seconds: Time spent on them.
    """

    def __init__(self, slice: TimeSlice = "equidistribution", every_n_steps: int = 100, points: int = 256) -> None:
        if slice not in get_args(TimeSlice):
            raise SettingError(
                f"Expected a slice of time for slice, got '{slice}'. {did_you_mean(slice, get_args(TimeSlice))}"
            )
        if every_n_steps < 1 or points < 1:
            raise SettingError(
                f"Expected positive integers for every_n_steps and points, got {every_n_steps} and {points}."
            )
        self.slice: TimeSlice = slice
        self.every_n_steps = every_n_steps
        self.points = points
        self.fits = 0
        self.seconds = 0.0
        self._gauge: TimeGauge | None = None
        self._last: int | None = None
        self._recent: deque[Tensor] = deque()
        self._warned = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        net = _net_of(pl_module)
        if net.adaptive:
            raise SettingError(
                f"Expected a solver with fixed steps for TimeGrid, got '{net.solver}', which chooses its own. "
                "Give model.solver=rk4, midpoint or euler."
            )
        self._gauge = TimeGauge(self.slice, net.solver, net.steps)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._recent.append(batch[0].detach())
        while sum(map(len, self._recent)) - len(self._recent[0]) >= self.points:
            self._recent.popleft()
        step = trainer.global_step
        if step % self.every_n_steps or step == self._last:
            return
        self._last = step
        begun = time.perf_counter()
        self._fit(trainer, _net_of(pl_module), torch.cat([*self._recent])[-self.points :])
        self.seconds += time.perf_counter() - begun

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in trainer.loggers:
            write_summary(logger, {"time_gauge_seconds": self.seconds, "time_gauge_fits": self.fits})

    def _fit(self, trainer: Trainer, net: OdeNet, u: Tensor) -> None:
        assert self._gauge is not None
        gauge = self._gauge.to(u.device)
        try:
            fit_clock_(net, gauge, u)
        except FieldError as reason:
            if not self._warned:
                message = f"No new time grid at step {trainer.global_step}: {reason}"
                warnings.warn(message, ProjectionWarning, stacklevel=2)
            self._warned = True
            return
        self.fits += 1
        unevenness = (gauge.times.diff() * gauge.steps).log().square().mean().sqrt()
        for logger in trainer.loggers:
            logger.log_metrics({"time/unevenness": float(unevenness)}, step=trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        times = None if self._gauge is None else self._gauge.times
        return {"fits": self.fits, "seconds": self.seconds, "last": self._last, "times": times}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.fits, self.seconds, self._last = state_dict["fits"], state_dict["seconds"], state_dict["last"]
        if self._gauge is not None and state_dict["times"] is not None:
            self._gauge.times.copy_(state_dict["times"])


def fit_clock_(net: OdeNet, gauge: TimeGauge, u: Tensor) -> None:
    """Fit a clock to the field of a network, and let the network integrate by it.

    Args:
        net: its time grid is replaced; nothing else.
        gauge: for the solver and the steps of ``net``; fitted in place.
        u: inputs to fit on, (batch, inputs); some dozens.

    Raises:
        FieldError: a field that is not finite.
    """
    exact = copy.deepcopy(net).double().eval()  # errors of a good solver are below the rounding of float32
    with torch.no_grad():
        x = exact.encoder(u.double())
    gauge.fit_(exact.field, x)
    net.set_clock(gauge.times)


def _net_of(module: LightningModule) -> OdeNet:
    net = getattr(module, "net", None)
    if not isinstance(net, OdeNet):
        raise SettingError(
            f"Expected a model with an OdeNet in its attribute net for TimeGrid, got {type(module).__name__}. "
            "Use it with recipes/neural_ode.py, or gaugefix.ode.TimeGauge in a model of your own."
        )
    return net
