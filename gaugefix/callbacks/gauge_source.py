"""GaugeSource: which module a callback analyses, what it is called with, and its gauge group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from gaugefix.callbacks.example_inputs import ExampleInputs, Recorder
from gaugefix.callbacks.gauge_cache import gauge_of, given_gauge
from gaugefix.callbacks.submodule import find_module
from gaugefix.errors import SettingError
from gaugefix.symmetry import GaugeGroup
from gaugefix.testing import Probe


@dataclass(frozen=True, eq=False)
class Analysed:
    """A module with its gauge group.

    Args:
        path: name of the module within the LightningModule (``""``: itself).
        module: what is analysed, without the wrapper of ``torch.compile``.
        gauge: the symmetries that hold while it trains (with dropout active, those exact with dropout).
        inputs: example inputs; ``None`` if they were not asked for and the gauge was given by hand.
    """

    path: str
    module: nn.Module
    gauge: GaugeGroup
    inputs: ExampleInputs | None


class GaugeSource:
    """Finds the module, its example inputs and its gauge group as soon as they can be known.

    The inputs are those of ``example_input_array``, or else of the first call in training. If the training step never
    calls the LightningModule but one of its children, it is that child which is analysed.

    Args:
        path: of a submodule, or ``None``.
        inputs_needed: whether example inputs are needed even if the gauge group is given by hand.
        conditional: whether symmetries that need nonzero gains belong to the group that is found (one given by hand is
            used as it is).
    """

    def __init__(self, path: str | None, inputs_needed: bool, conditional: bool = False) -> None:
        self.path = path
        self.inputs_needed = inputs_needed
        self.conditional = conditional
        self.found: Analysed | None = None
        self._recorder: Recorder | None = None

    def attach(self, pl_module: nn.Module) -> None:
        """Find the gauge group if the first call need not be waited for."""
        self.detach()
        self.found = None
        module = find_module(pl_module, self.path)
        given = given_gauge(module)
        array = getattr(pl_module, "example_input_array", None)
        if given is not None and not self.inputs_needed:
            self.found = Analysed(self.path or "", module, given, None)
        elif array is not None:
            example = ExampleInputs.of(array).fitted(pl_module)
            if self.path is None:
                self.analyse("", module, example)
                return
            recorder = Recorder({self.path: module})
            try:
                Probe(pl_module, example.args, example.kwargs)()
            finally:
                recorder.remove()
            if self.path in recorder.calls:
                self.analyse(self.path, module, recorder.calls[self.path])

    def listen(self, pl_module: nn.Module) -> None:
        """Record the calls of a training step that is about to begin, if they are needed."""
        if self.found is None and self._recorder is None:
            modules = {self.path: find_module(pl_module, self.path)} if self.path else _candidates(pl_module)
            self._recorder = Recorder(modules)

    def collect(self, pl_module: nn.Module, stepped: bool) -> None:
        """Use the calls of the training step that has ended.

        Args:
            pl_module: the LightningModule.
            stepped: whether parameters were trained; if so without any call, waiting is useless.

        Raises:
            SettingError: if the calls do not show which module to analyse.
        """
        if self.found is not None or self._recorder is None:
            return
        calls = self._recorder.calls
        path = self.path or ""
        if path not in calls and len(calls) == 1:
            path = next(iter(calls))
        if path in calls:
            self.detach()
            self.analyse(path, find_module(pl_module, path), calls[path])
        elif calls or stepped:
            self.detach()
            raise SettingError(_ambiguous(pl_module, self.path, list(calls)))

    def detach(self) -> None:
        """Stop listening."""
        if self._recorder is not None:
            self._recorder.remove()
        self._recorder = None

    def analyse(self, path: str, module: nn.Module, example: ExampleInputs) -> None:
        """Find the gauge group of a module from what it is called with."""
        example = example.fitted(module)
        gauge = gauge_of(module, example)
        if given_gauge(module) is None and not self.conditional:
            gauge = _unconditional(gauge)
        self.found = Analysed(path, module, gauge, example)


def _unconditional(gauge: GaugeGroup) -> GaugeGroup:
    conditional = any(s.conditional for s in gauge.symmetries)
    return gauge.select(lambda s: not s.conditional) if conditional else gauge


def _candidates(pl_module: nn.Module) -> Mapping[str, nn.Module]:
    """The LightningModule itself, and its children with parameters."""
    children = {
        name: find_module(pl_module, name)
        for name, child in pl_module.named_children()
        if next(child.parameters(), None) is not None
    }
    return {"": pl_module, **children}


def _ambiguous(pl_module: nn.Module, path: str | None, called: list[str]) -> str:
    kind = type(pl_module).__name__
    if path is not None:
        return (
            f"Expected a call of '{path}' in the training step of {kind}, got none. Name a submodule that it calls, or "
            "set example_input_array on the LightningModule."
        )
    got = f"calls of {', '.join(called)}" if called else "no call of the LightningModule or its children"
    options = called or [name for name in _candidates(pl_module) if name]
    choice = " or ".join(f"module='{name}'" for name in options) or "module="
    return (
        f"Expected one network in the training step of {kind}, got {got}. Say which to analyse with {choice}, or set "
        "example_input_array on the LightningModule."
    )
