"""The gauge group of each module in training: discovered once for all callbacks, or given by hand."""

from __future__ import annotations

import warnings
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gaugefix.callbacks.example_inputs import ExampleInputs
from gaugefix.callbacks.submodule import uncompiled, unwrapped
from gaugefix.discovery import discover
from gaugefix.errors import DiscoveryError, NoEffectWarning
from gaugefix.sharding import is_sharded, structure_of
from gaugefix.symmetry import GaugeGroup


@dataclass(frozen=True, eq=False)
class _Known:
    """A gauge group, and the parameters that it was discovered for (``None``: given by hand)."""

    gauge: GaugeGroup
    parameters: tuple[Any, ...] | None


_CACHE: weakref.WeakKeyDictionary[nn.Module, _Known] = weakref.WeakKeyDictionary()


def use_gauge(module: nn.Module, gauge: GaugeGroup) -> None:
    """Give the callbacks the gauge group of ``module`` instead of letting them discover it.

    For symmetries stated by hand (:func:`gaugefix.declare`), for a part of what was found (``gauge.select``), and for a
    module that ``torch.export`` refuses.

    Args:
        module: the LightningModule, or the submodule that ``module=`` of a callback names.
        gauge: its group.

    Raises:
        SymmetryError: if the group belongs to another model.

    Example:
        >>> import gaugefix
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> use_gauge(net, gaugefix.discover(net, (torch.randn(3, 4),)).select(lambda s: s.name == "0:scale"))
    """
    gauge.check(module)
    _CACHE[unwrapped(module)] = _Known(_while_training(gauge), None)


def given_gauge(module: nn.Module) -> GaugeGroup | None:
    """Return the gauge group that was given by hand, if any."""
    known = _CACHE.get(module)
    return known.gauge if known is not None and known.parameters is None else None


def gauge_of(module: nn.Module, example: ExampleInputs) -> GaugeGroup:
    """Return the symmetries of ``module`` that hold while it trains; discovered if its parameters are new or changed.

    Raises:
        DiscoveryError: if the module cannot be traced.
    """
    parameters = tuple((name, tuple(p.shape), p.requires_grad) for name, p in module.named_parameters())
    known = _CACHE.get(module)
    if known is None or known.parameters not in (None, parameters):
        with uncompiled(module), torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore", NoEffectWarning)  # the callback gives its own
            try:
                if is_sharded(module):
                    example = example.on_tensors(lambda t: t.to("cpu"))
                    gauge = discover(structure_of(module), example.args, example.kwargs)
                else:
                    gauge = discover(module, example.args, example.kwargs)
            except DiscoveryError as error:
                mend = "Hand the group to the callbacks with gaugefix.callbacks.use_gauge(module, gauge)."
                raise DiscoveryError(f"{error} {mend}") from error
        known = _CACHE[module] = _Known(_while_training(gauge), parameters)
    return known.gauge


def _while_training(gauge: GaugeGroup) -> GaugeGroup:
    return gauge.exact() if gauge.dropout else gauge
