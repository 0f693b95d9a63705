"""GradientMoments: running averages of squared gradients, in the gauge where the parameters are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from gaugefix.errors import SettingError
from gaugefix.slices.moment_transport import block_legs, gradient_part, is_scaling, moved_moments, scale_squares_
from gaugefix.slices.running_averages import Averages
from gaugefix.slices.second_moment import add_blocks_, block_vectors
from gaugefix.symmetry import Element, GaugeGroup

DECAY = 0.95
"""Default decay per observation: the averages reach back about 20 of them.

Measured on digits (MLP 64-128×4-10, SGD lr 0.1 momentum 0.9, 300 steps, 10 seeds, a projection every 10 steps, every
gradient observed), training loss of the last 50 steps, geometric mean, known to a factor of about 1.5: 1.4e-3 with 0.9,
2.6e-3 with 0.95, 7.3e-3 with 0.99, 1.4e-2 with 0.999, 3.7e-2 without projections.
"""


class GradientMoments:
    """Exponential averages of G² (every entry) and of G Gᵀ (per GL block and leg), by the legs of a gauge group.

    Each average starts at zero and is corrected for that as in Adam. Gradients that are not finite are left out, and no
    answer of the device is awaited. Call :meth:`transport_` whenever the parameters move along the orbit.

    Args:
        gauge: the group.
        decay: how much of an average is left after one observation.

    Example:
        >>> import torch, gaugefix
        >>> from gaugefix.slices import Flat, GradientMoments
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> gauge = gaugefix.discover(net, (torch.randn(3, 4),))
        >>> moments = GradientMoments(gauge)
        >>> net(torch.randn(5, 4)).square().mean().backward()
        >>> moments.observe({name: p.grad for name, p in net.named_parameters()})
        >>> element = gaugefix.project_(net, gauge, Flat(moments))
        >>> moments.transport_(element)
        >>> gaugefix.drift(net, gauge, Flat(moments)).total < 1e-3
        True
    """

    def __init__(self, gauge: GaugeGroup, decay: float = DECAY) -> None:
        if not 0.0 <= decay < 1.0:
            raise SettingError(f"Expected a decay in [0, 1) for GradientMoments, got {decay}. Give 0.95, say.")
        self.gauge = gauge
        self.decay = decay
        part = gradient_part(gauge)
        self.blocks = block_legs(part.symmetries)
        buffers = {leg.parameter for s in part.symmetries for leg in s.legs if leg.buffer}  # type: ignore[attr-defined]
        moved = dict.fromkeys(name for s in part.symmetries for name in s.parameters)
        self.names = tuple(name for name in moved if name not in buffers)
        self._averages: list[Averages] = []

    # ---- observing ---------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def observe(self, gradients: Mapping[str, Tensor | None], scale: Tensor | float = 1.0) -> None:
        """Take one gradient in; parameters without any keep their averages.

        Args:
            gradients: by name.
            scale: factor of the loss that is not part of the gradient, as of a gradient scaler.
        """
        for part in self._by_device(gradients):
            wide = any(g.dtype == torch.float64 for g in part.values())
            like = next(iter(part.values())).new_empty(0, dtype=torch.float64 if wide else torch.float32)
            average = self._of("squares", {name: tuple(g.shape) for name, g in part.items()}, like)
            flat, entries = average.gather(part.values())
            if not isinstance(scale, float) or scale != 1.0:
                entries.div_(scale)
            total = entries.dot(entries)
            weight: Tensor | float = 1.0 - self.decay
            if total.device.type == "cpu":  # its answer costs nothing
                if not math.isfinite(total):
                    continue
            else:
                weight = torch.isfinite(total) * weight
            average.add_(entries.square_(), flat, weight)
            keys = [key for key, block in self.blocks.items() if block.leg.parameter in part]
            if keys:
                shapes = {key: self.blocks[key].symmetry.group.shape for key in keys}
                average = self._of("products", shapes, like.double())
                flat, entries = average.gather(self._product(key, part) for key in keys)
                if not isinstance(scale, float) or scale != 1.0:
                    entries.div_(scale).div_(scale)
                average.add_(entries, flat, weight)

    def _by_device(self, gradients: Mapping[str, Tensor | None]) -> list[dict[str, Tensor]]:
        """The gradients that are there, dense; those of one device together."""
        found: dict[torch.device, dict[str, Tensor]] = {}
        for name in self.names:
            g = gradients.get(name)
            if g is not None:
                dense = g.detach() if g.layout == torch.strided else g.detach().to_dense()
                found.setdefault(g.device, {})[name] = dense
        return list(found.values())

    def _product(self, key: str, gradients: Mapping[str, Tensor]) -> Tensor:
        """Σ G Gᵀ per block of one leg, (batch, n, n), float64."""
        block = self.blocks[key]
        tensor = gradients[block.leg.parameter]
        total = torch.zeros(block.symmetry.group.shape, dtype=torch.float64, device=tensor.device)
        vectors, where = block_vectors(block.leg, tensor, block.n)
        add_blocks_(total, vectors @ vectors.mT, where)
        return total

    # ---- what is known -----------------------------------------------------------------------------------------------
    @property
    def empty(self) -> bool:
        """Whether nothing was observed yet."""
        return not any(float(a.tail.max()) > 0.0 for a in self._averages if a.kind == "squares")

    def squares(self) -> dict[str, Tensor]:
        """E[G²] of every parameter observed, at least float32."""
        return self._known("squares")

    def products(self) -> dict[str, Tensor]:
        """E[G Gᵀ] of every leg of a GL block observed, (batch, n, n), float64."""
        return self._known("products")

    def _known(self, kind: str) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for average in self._averages:
            weights = dict(zip(average.keys, average.tail.tolist(), strict=True))
            if average.kind == kind:
                found |= {key: v / weights[key] for key, v in average.values.items() if weights[key] > 0.0}
        return found

    # ---- moving ------------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def transport_(self, element: Element, gauge: GaugeGroup | None = None) -> None:
        """Move along with the parameters, in place.

        Args:
            element: what acted on them.
            gauge: the group of the element, if it is another than :attr:`gauge`.
        """
        gauge = self.gauge if gauge is None else gauge
        squares, products = self._raw("squares"), self._raw("products")
        for name, value in element.steps:
            symmetry = gauge[name]
            if not products and is_scaling(symmetry):
                scale_squares_(symmetry, value, squares)
                continue
            changed = moved_moments(symmetry, value, squares, products, self.blocks)
            for average in self._averages:
                for key, new in changed[average.kind == "products"].items():
                    if key in average.values:
                        average.replace_(key, new)

    def clear(self, names: Iterable[str]) -> None:
        """Forget what is known of some parameters, such as those that were moved without :meth:`transport_`."""
        gone = set(names)
        for average in self._averages:
            for key in average.values:
                if (self.blocks[key].leg.parameter if average.kind == "products" else key) in gone:
                    average.replace_(key, None)

    # ---- checkpoints -------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Any]:
        """Plain tensors by name, loadable with ``torch.load(weights_only=True)``."""
        state: dict[str, Any] = {}
        for kind in ("squares", "products"):
            found = [a for a in self._averages if a.kind == kind]
            state[kind] = {key: value.clone() for a in found for key, value in a.values.items()}
            state[f"{kind}_weights"] = {key: value.clone() for a in found for key, value in a.weights.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the averages of what this group moves."""
        self._averages = []
        for kind in ("squares", "products"):
            shapes = {
                "squares": {name: tuple(self.gauge.shapes[name]) for name in self.names},
                "products": {key: block.symmetry.group.shape for key, block in self.blocks.items()},
            }[kind]
            fitting = {k: v for k, v in state[kind].items() if tuple(v.shape) == shapes.get(k)}
            for key, value in fitting.items():
                average = Averages(kind, {key: tuple(value.shape)}, value)
                average.values[key].copy_(value)
                average.weights[key].copy_(state[f"{kind}_weights"][key])
                self._averages.append(average)

    # ---- inside ------------------------------------------------------------------------------------------------------
    def _raw(self, kind: str) -> dict[str, Tensor]:
        return {key: value for a in self._averages if a.kind == kind for key, value in a.values.items()}

    def _of(self, kind: str, shapes: Mapping[str, tuple[int, ...]], like: Tensor) -> Averages:
        """The averages of just these keys, with what is known of them so far."""
        for average in self._averages:
            if average.kind == kind and average.fits(shapes, like):
                return average
        new = Averages(kind, shapes, like)
        for average in [a for a in self._averages if a.kind == kind and a.values.keys() & shapes.keys()]:
            for key in average.values.keys() & shapes.keys():
                new.values[key].copy_(average.values.pop(key))
                new.weights[key].copy_(average.weights.pop(key))
        self._averages = [a for a in self._averages if a.values] + [new]
        return new
