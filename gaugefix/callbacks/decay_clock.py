"""DecayClock: how far weight decay has contracted parameters, as SGD takes it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

from torch.optim import SGD, Optimizer
from torch.utils.hooks import RemovableHandle

from gaugefix.callbacks.schedule import is_real

_LEAST = 1e-12
"""Of a contraction by one step: lr·wd = 1 would leave nothing."""


class DecayClock:
    """Follows weight decay alone: a parameter without gradient would by now be its start times e^(−wd·t).

    SGD adds wd·θ to the gradient g, so its momentum m delays and amplifies the decay. All of it is linear in θ, so one
    number per group follows exactly. With the buffer v = u·θ and dampening d,

        u ← m·u + (1−d)·wd   (u = wd at the first step),      θ ← (1 − lr·p)·θ,      u ← u/(1 − lr·p),

    p = u, or wd + m·u by Nesterov, or wd without momentum. So wd·t = −Σ log(1 − lr·p): without momentum Σ lr·wd up to
    second order, with momentum t runs with the learning rate lr·(1−d)/(1−m) once 1/(1−m) steps are over. Learning rate,
    momentum and weight decay are read at every step, so that schedules count.

    Attributes:
        sums: wd·t since the last reset, by optimizer and group.
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self._optimizers: dict[int, Optimizer] = {}
        self.forget()

    def forget(self) -> None:
        """Forget everything, the decay in momentum buffers too."""
        self.sums: dict[str, float] = {}
        self._buffers: dict[str, float] = {}

    def attach(self, optimizers: Iterable[Optimizer]) -> None:
        """Start listening; the sums go on."""
        self.detach()
        self._optimizers = {key: o for key, o in enumerate(optimizers) if type(o) is SGD}
        self._handles = [o.register_step_post_hook(partial(self._count, key)) for key, o in self._optimizers.items()]

    def detach(self) -> None:
        """Stop listening."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._optimizers = {}

    def reset(self) -> None:
        """Start the sums at 0; momentum buffers go on."""
        self.sums = {}

    def exponents(self) -> dict[int, float]:
        """Return wd·t by the id of each parameter that an SGD trains."""
        return {
            id(parameter): self.sums.get(f"{key}/{index}", 0.0)
            for key, optimizer in self._optimizers.items()
            for index, group in enumerate(optimizer.param_groups)
            for parameter in group["params"]
            if parameter.requires_grad
        }

    def state_dict(self) -> dict[str, dict[str, float]]:
        """Plain numbers."""
        return {"sums": dict(self.sums), "buffers": dict(self._buffers)}

    def load_state_dict(self, state: dict[str, dict[str, float]]) -> None:
        """Go on from a checkpoint."""
        self.sums, self._buffers = dict(state["sums"]), dict(state["buffers"])

    def _count(self, key: int, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not is_real(optimizer):
            return
        for index, group in enumerate(optimizer.param_groups):
            place, decay, momentum = f"{key}/{index}", float(group["weight_decay"]), float(group["momentum"])
            pull = decay
            if momentum:
                new = (1.0 - float(group["dampening"])) * decay
                buffer = momentum * self._buffers[place] + new if place in self._buffers else decay
                self._buffers[place] = buffer
                pull = decay + momentum * buffer if group["nesterov"] else buffer
            left = max(abs(1.0 - float(group["lr"]) * pull), _LEAST)
            self.sums[place] = self.sums.get(place, 0.0) - math.log(left)
            if momentum:
                self._buffers[place] /= left
