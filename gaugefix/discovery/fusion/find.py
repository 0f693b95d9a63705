"""Find the parts of a graph that are one operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx

from gaugefix.discovery.capture import Capture
from gaugefix.discovery.fusion.constants import Constants
from gaugefix.discovery.fusion.layer import layer_region
from gaugefix.discovery.fusion.linear import name_linear_maps
from gaugefix.discovery.fusion.regions import Region, linear_regions
from gaugefix.discovery.fusion.rms import rms_region
from gaugefix.discovery.fusion.rotary import Rotary, read_rotary


@dataclass(frozen=True, eq=False)
class Fusion:
    """One operation that the graph spells out.

    Args:
        name: of its rule.
        region: the nodes that spell it.
        arguments: what the rule needs to know beside the value that enters.
    """

    name: str
    region: Region
    arguments: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Fusions:
    """All of one graph: by the node at which they end, and the nodes that nobody else needs."""

    by_end: Mapping[fx.Node, Fusion]
    skipped: frozenset[fx.Node]


def fusions(capture: Capture) -> Fusions:
    """Find rotary positions and norms, and call linear maps by their name."""
    name_linear_maps(capture)
    found: dict[fx.Node, Fusion] = {}
    covered: set[fx.Node] = set()
    constants = Constants(capture)
    known: dict[Any, Rotary | None] = {}
    for region in linear_regions(constants):
        if region.end not in covered:
            rotary = read_rotary(region, constants, known)
            if rotary is not None:
                found[region.end] = Fusion("gaugefix.rotary", region, {"rotary": rotary})
                covered.update(region.nodes)
    for node in capture.nodes():
        if node.op == "call_function" and node not in covered:
            norm = layer_region(node)
            name = "gaugefix.rms_norm" if norm is None else "gaugefix.layer_norm"
            norm = norm or rms_region(node)  # of a value that is centred before, else
            if norm is not None and not constants.changed & {norm.root, *norm.nodes}:
                found[node] = Fusion(name, norm, {})
    skipped: set[fx.Node] = set()
    live = set(capture.nodes())
    for fusion in found.values():
        skipped |= _unneeded(fusion.region, live)
    return Fusions(found, frozenset(skipped))


def _unneeded(region: Region, live: set[fx.Node]) -> set[fx.Node]:
    """Nodes inside that are read inside only; the others are interpreted as well.

    Whoever is not live (an assertion about a dtype) reads nothing.
    """
    unneeded: set[fx.Node] = {region.end}
    while more := [n for n in region.nodes if n not in unneeded and live & n.users.keys() <= unneeded]:
        unneeded.update(more)
    return unneeded - {region.end}
