"""What the callbacks add to a step of the three recipes, at default settings.

Two ways that must agree. As a whole: the same fit with and without the callback, in turn. In parts: what Lightning
spends in its hooks for callbacks (calling ours included) and in hooks of optimizers, on steps without an action, and
what an action takes; the overhead is then hooks + action · actions/steps. A fit of a few seconds on a machine that does
other things varies by more than the overhead; the parts do not.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from unittest import mock

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.trainer import call

from gaugefix import GaugeProjection, OrbitDrift
from gaugefix.callbacks.gauge_callback import GaugeCallback
from gaugefix.demo.corpus import CorpusData
from gaugefix.demo.digits import DigitsData
from gaugefix.demo.language_model import LanguageModel
from gaugefix.demo.mlp import MLP
from gaugefix.demo.ode_classifier import ODEClassifier
from gaugefix.demo.quiet import quiet

RECIPES: dict[str, tuple[Callable[[], LightningModule], Callable[[], LightningDataModule]]] = {
    "feedforward": (MLP, DigitsData),
    "neural ODE": (partial(ODEClassifier, dimension=16, hidden=64, lr=1e-3), DigitsData),
    "transformer": (partial(LanguageModel, "rope", width=96, layers=3, heads=4, kv_heads=2), CorpusData),
}
"""Modules and data as configs/*/minimal_norm.yaml has them."""
CALLBACKS: dict[str, Callable[[], GaugeCallback]] = {
    "GaugeProjection()": GaugeProjection,
    "GaugeProjection(every_n_steps=100)": partial(GaugeProjection, every_n_steps=100),
    "OrbitDrift()": OrbitDrift,
}


@dataclass
class Fit:
    """Times of one fit.

    Args:
        wall: seconds a step, from the first to the last, all callbacks included.
        cpu: the same of the CPU.
        hooks: seconds in hooks, of every step but those with an action.
        actions: seconds of the CPU that each action took.
        discovery: seconds of finding the gauge group, before the first step.
        parameters: the model's, at the end.
    """

    wall: float = 0.0
    cpu: float = 0.0
    hooks: list[float] = field(default_factory=list)
    actions: list[float] = field(default_factory=list)
    discovery: float = 0.0
    parameters: list[torch.Tensor] = field(default_factory=list)


class Meter:
    """Times Lightning's calls of callback hooks, and the hooks of optimizers, step by step."""

    running = False

    def __init__(self, fit: Fit, callback: Callback | None) -> None:
        self.fit = fit
        self.original = call._call_callback_hooks
        self.spent = 0.0
        self.acted = False
        if isinstance(callback, GaugeCallback):
            self.act, callback.act = callback.act, self._timed_action

    def _timed_action(self, *args: object) -> None:
        begun = time.process_time()
        self.act(*args)
        if self.running:
            self.fit.actions.append(time.process_time() - begun)
        self.acted = True

    def __call__(self, trainer: Trainer, hook: str, *args: object, **kwargs: object) -> None:
        if hook == "on_train_batch_start":
            if not self.running:
                self._listen(trainer)
                self.running = True
                self.begun = time.perf_counter(), time.process_time()
            self.spent, self.acted = 0.0, False
        begun = time.perf_counter()
        self.original(trainer, hook, *args, **kwargs)
        self.spent += time.perf_counter() - begun
        if hook == "on_train_batch_end":
            if not self.acted:
                self.fit.hooks.append(self.spent)
            self.ended = time.perf_counter(), time.process_time()

    def _listen(self, trainer: Trainer) -> None:
        for optimizer in trainer.optimizers:
            hooks = optimizer._optimizer_step_post_hooks
            for key, function in hooks.items():
                hooks[key] = partial(self._timed_hook, function)

    def _timed_hook(self, function: Callable[..., None], *args: object) -> None:
        begun = time.perf_counter()
        function(*args)
        self.spent += time.perf_counter() - begun


def fit(recipe: str, callback: Callback | None, steps: int) -> Fit:
    """Train for some steps, without logger, checkpoints or progress bar, so that nothing hides the callback."""
    seed_everything(0, verbose=False)
    make, data = RECIPES[recipe]
    found = Fit()
    meter = Meter(found, callback)
    model = make()
    trainer = Trainer(
        max_steps=steps,
        limit_val_batches=0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[] if callback is None else [callback],
    )
    with mock.patch.object(call, "_call_callback_hooks", meter):
        trainer.fit(model, datamodule=data())
    found.wall, found.cpu = ((end - begin) / steps for begin, end in zip(meter.begun, meter.ended, strict=True))
    found.parameters = [p.detach() for p in model.parameters()]
    if isinstance(callback, GaugeCallback):
        found.discovery = callback.discovery_seconds
    return found


def empty_hooks(recipe: str, steps: int) -> float:
    """Return the seconds a step that Lightning takes to call the hooks of a callback that does nothing."""
    with_, without = fit(recipe, Callback(), steps), fit(recipe, None, steps)
    return statistics.median(with_.hooks) - statistics.median(without.hooks)


@dataclass(frozen=True)
class Overhead:
    """What a callback adds to a step of a recipe; medians over rounds.

    Args:
        step: seconds of the CPU that a step takes without it.
        wall: share of the wall time of the fit, with against without.
        cpu: the same of the CPU time.
        hooks: seconds a step, beyond those of a fit without callbacks.
        action: seconds of one action.
        actions: how many there were after the start.
        steps: of the fit.
        discovery: seconds, once per fit.
    """

    step: float
    wall: float
    cpu: float
    hooks: float
    action: float
    actions: int
    steps: int
    discovery: float

    @property
    def by_parts(self) -> float:
        """Share of a step: hooks + action · actions/steps."""
        return (self.hooks + self.action * self.actions / self.steps) / self.step


def overheads(recipe: str, steps: int, rounds: int) -> dict[str, Overhead]:
    """Measure every callback on a recipe; which fit comes first alternates."""
    quiet()
    fits: dict[str, list[Fit]] = {name: [] for name in ("", *CALLBACKS)}
    for k in range(rounds):
        order = list(fits) if k % 2 == 0 else list(fits)[::-1]
        for name in order:
            callback = CALLBACKS[name]() if name else None
            fits[name].append(fit(recipe, callback, steps))
            if callback is not None:
                _check(callback, fits[name][-1], steps)
        _check_equal(fits["OrbitDrift()"][-1], fits[""][-1])
    bare = fits[""]
    idle = statistics.median(h for f in bare for h in f.hooks)
    found = {}
    for name in CALLBACKS:
        with_ = fits[name]
        found[name] = Overhead(
            step=statistics.median(f.cpu for f in bare),
            wall=statistics.median(w.wall / b.wall - 1.0 for w, b in zip(with_, bare, strict=True)),
            cpu=statistics.median(w.cpu / b.cpu - 1.0 for w, b in zip(with_, bare, strict=True)),
            hooks=statistics.median(h for f in with_ for h in f.hooks) - idle,
            action=statistics.median(a for f in with_ for a in f.actions),
            actions=len(with_[0].actions),
            steps=steps,
            discovery=statistics.median(f.discovery for f in with_),
        )
    return found


def _check(callback: GaugeCallback, found: Fit, steps: int) -> None:
    expected = steps // callback.every_n_steps  # at least: the default interval of a projection grows
    enough = (
        1 <= len(found.actions) <= expected if type(callback) is GaugeProjection else len(found.actions) == expected
    )
    assert enough, f"{len(found.actions)} actions in {steps} steps, expected {expected}"
    if isinstance(callback, GaugeProjection):
        assert callback.rolled_back == callback.skipped == 0, "a projection was taken back or left out"
        assert callback.invariance_error < 3e-6, f"outputs changed by {callback.invariance_error:.1e}"
    if isinstance(callback, OrbitDrift):
        assert callback.last is not None


def _check_equal(measured: Fit, bare: Fit) -> None:
    """A measurement changes no bit of the training."""
    assert all(torch.equal(a, b) for a, b in zip(measured.parameters, bare.parameters, strict=True))
