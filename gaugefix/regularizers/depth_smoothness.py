"""Smoothness across depth: ∂_t W = 0."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from gaugefix.errors import SettingError
from gaugefix.regularizers.base import GaugeTerm, register_term, total
from gaugefix.sharding import Shards, rows_of
from gaugefix.symmetry import GaugeGroup


@register_term("depth_smoothness")
class DepthSmoothness(GaugeTerm):
    """R = Σ ‖W_{k+1} − W_k‖² over neighbouring layers: parameters whose names differ by one number alone.

    ``blocks.0.fc.weight`` and ``blocks.1.fc.weight`` are neighbours if their shapes agree; so are ``net.2.weight`` and
    ``net.4.weight`` if ``net.3`` has no weight.
    """

    condition = "∂_t W = 0 along the depth (Lorenz gauge of the connection in one dimension)"
    freedom = "transformations that are the same in every layer"
    changes_function = "yes: it makes neighbouring layers alike"
    takes_shards = True
    cost = "two passes over the parameters of repeated layers"
    source = "arXiv 2402.02362, Section 6; of fields: gaugefix.ode.terms.depth_smoothness"

    def value(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> Tensor:
        pairs = _pairs(tensors)
        parts = [(tensors[b] - tensors[a]).square().sum() for a, b in pairs]
        return total(parts)

    @torch.no_grad()
    def measure(self, gauge: GaugeGroup, tensors: Mapping[str, Tensor]) -> float:
        if not isinstance(tensors, Shards):
            return super().measure(gauge, tensors)
        here, found = tensors.local, dict[str, list[Tensor]]()
        for a, b in _pairs(tensors):
            found.setdefault(b, []).append((here[b] - here[a]).square().sum())
        return float(tensors.total({name: total(parts) for name, parts in found.items()}))

    @torch.no_grad()
    def add_gradient_(
        self, gauge: GaugeGroup, tensors: Mapping[str, Tensor], gradients: Mapping[str, Tensor], strength: float
    ) -> None:
        pairs = _pairs(tensors)
        if not pairs:
            return
        here = rows_of(tensors)
        apart = torch._foreach_sub([here[b] for _, b in pairs], [here[a] for a, _ in pairs])
        for side, sign in ((1, 2.0), (0, -2.0)):
            known = [
                (gradients[pair[side]], d) for pair, d in zip(pairs, apart, strict=True) if pair[side] in gradients
            ]
            if known:
                torch._foreach_add_([g for g, _ in known], [d for _, d in known], alpha=sign * strength)

    def check(self, gauge: GaugeGroup) -> None:
        if not neighbours(gauge.shapes):
            raise SettingError(
                "Expected repeated layers (names that differ by one number, and shapes that agree) for the term "
                "'depth_smoothness', got none. Use it for deep networks of equal widths."
            )


def neighbours(shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[str, str]]:
    """Return pairs of names that follow each other along one number, sorted by it.

    Example:
        >>> neighbours({"net.0.weight": (8, 4), "net.2.weight": (8, 8), "net.4.weight": (8, 8)})
        [('net.2.weight', 'net.4.weight')]
    """
    lines: dict[tuple[str, int], list[tuple[int, str]]] = {}
    for name in shapes:
        for k, match in enumerate(re.finditer(r"(?<![^.])\d+(?![^.])", name)):
            family = (name[: match.start()] + "*" + name[match.end() :], k)
            lines.setdefault(family, []).append((int(match.group()), name))
    return [pair for line in lines.values() for pair in _in_order(line, shapes)]


def _pairs(tensors: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    shapes = {name: tuple(t.shape) for name, t in rows_of(tensors).items() if t.is_floating_point()}
    if not isinstance(tensors, Shards):
        return _known_pairs(tuple(shapes.items()))
    # Parameters of one shape lie alike; those whose rows here have one shape need not.
    places = tensors.places
    shapes |= {name: p.shape for name, p in places.items() if p is not None and name in shapes}
    pairs = _known_pairs(tuple(shapes.items()))
    for a, b in pairs:
        if (places[a] is None) != (places[b] is None):
            raise SettingError(
                f"Expected neighbours that are sharded alike for the term 'depth_smoothness', got '{a}' and '{b}', of "
                "which one is. Shard both with fully_shard, or neither."
            )
    return pairs


@functools.lru_cache(maxsize=8)  # asked at every optimizer step
def _known_pairs(shapes: tuple[tuple[str, tuple[int, ...]], ...]) -> list[tuple[str, str]]:
    return neighbours(dict(shapes))


def _in_order(line: Iterable[tuple[int, str]], shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[str, str]]:
    names = [name for _, name in sorted(line)]
    return [(a, b) for a, b in itertools.pairwise(names) if shapes[a] == shapes[b]]
