"""Noether charges of shards, from the moments that the terms read."""

from __future__ import annotations

import torch
from torch import Tensor

from gaugefix.groups import ComplexScaling, GeneralLinear
from gaugefix.regularizers.sharded_moments import moment_map_for
from gaugefix.sharding import Shards, widened
from gaugefix.slices.second_moment import second_moments
from gaugefix.symmetry import GaugeGroup, WriterKernel


@torch.no_grad()
def charges_of_shards(gauge: GaugeGroup, shards: Shards) -> dict[str, Tensor]:
    """Return what :func:`gaugefix.functional.noether_charge` does of whole parameters; all processes call it together.

    Scalings are sums of the rows of each process: q = in − out. A block of GL needs the rows of its coordinates, which
    are gathered one parameter at a time; so does a kernel.

    Args:
        gauge: the group.
        shards: what it reads.

    Returns:
        Symmetry name → charge, float64, the same on every process.
    """
    wide = widened(shards, gauge.shapes)
    assert isinstance(wide, Shards)
    source = moment_map_for(gauge, wide)
    moments = source.here(wide)
    units = moments.ins - moments.outs
    blocks = {s.name: pair for s, pair in zip(source.blocks, moments.blocks, strict=True)}
    charges: dict[str, Tensor] = {}
    for s in gauge.applied:
        if s.name in source.balance.classes:
            start, n = source.balance.classes[s.name]
            charge = units[start : start + n].double()
            planes = isinstance(s.group, ComplexScaling)
            charges[s.name] = torch.diag_embed(0.5 * charge[:, None].expand(-1, 2)) if planes else charge
        elif isinstance(s.group, GeneralLinear):
            vectors, covectors = blocks[s.name] if s.name in blocks else second_moments(s, wide)  # type: ignore[arg-type]
            charges[s.name] = vectors - covectors
        elif isinstance(s, WriterKernel):
            charges[s.name] = wide[s.weight].sum(s.axis).reshape(-1)
    return charges
