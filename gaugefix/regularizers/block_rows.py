"""BlockRows: the blocks of GL whose coordinates are rows of a sharded parameter."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gaugefix.sharding import Place, Shards
from gaugefix.symmetry import Leg


class BlockRows:
    """Which blocks of a leg along the first axis this process works on.

    A block (a head, say) whose coordinates are all rows of one process is the work of that process, and nothing is
    gathered. If the cut between processes goes through any block, the parameter is; each block is then summed by the
    process of its first row.

    Args:
        leg: of a matrix group, along axis 0 alone.
        place: where the parameter lies.
        n: size of a block.
        device: of the rows.
    """

    def __init__(self, leg: Leg, place: Place, n: int, device: torch.device) -> None:
        self.leg, self.place = leg, place
        position, block = leg.positions(n)
        owner = position // -(-place.shape[0] // place.mesh.size())
        rank = place.mesh.get_local_rank()
        self.split = bool((owner != owner[:, :1]).any())
        summed, moved = owner[:, 0] == rank, (owner == rank).any(1)
        first = 0 if self.split else place.start
        inside = (owner == rank)[moved].reshape(-1)
        self.summed_blocks = block[summed]
        self._summed = torch.from_numpy(position[summed] - first).to(device)
        self._moved = torch.from_numpy(position[moved] - first).to(device)
        self._moved_blocks = torch.from_numpy(block[moved]).to(device)
        self._inside = torch.from_numpy(np.flatnonzero(inside)).to(device)
        self._rows = torch.from_numpy((position[moved] - place.start).reshape(-1)[inside]).to(device)

    def to_sum(self, shards: Shards, dtype: torch.dtype) -> Tensor:
        """The vectors of the blocks that this process sums, (copies, n, rest)."""
        return self._vectors(shards, self._summed, dtype)

    def pull_back_(self, gradient: Tensor, shards: Shards, slope: Tensor, factor: float) -> None:
        """Add factor · slope · P to the rows here; ``slope`` is (batch, n, n)."""
        mixed = slope[self._moved_blocks] @ self._vectors(shards, self._moved, slope.dtype)
        rows = mixed.flatten(0, 1)[self._inside].to(gradient.dtype)
        gradient.index_add_(0, self._rows, rows.view(-1, *gradient.shape[1:]), alpha=factor)

    def _vectors(self, shards: Shards, index: Tensor, dtype: torch.dtype) -> Tensor:
        name = self.leg.parameter
        rows = shards[name] if self.split else shards.local[name]
        rows = rows.flatten(1) if rows.ndim > 1 else rows[:, None]
        vectors = rows[index].to(dtype)
        return vectors + self.leg.offset if self.leg.offset else vectors
