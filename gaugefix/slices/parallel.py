"""Small matrices in batches, shared out over threads.

LAPACK with several threads on one matrix of size 64 spends its time on waiting (tenfold where cores are shared), and
PyTorch factorises a batch on the CPU one matrix after another. One thread per part of the batch is faster than both.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")

_PART = 16
"""Fewest matrices per thread that are worth one."""


def over_batch(solve: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
    """Apply ``solve`` to parts of ``tensors`` along axis 0, and join what it returns.

    Args:
        solve: from tensors (part, …) to tensors (part, …), without side effects.
        tensors: (batch, …) each.
    """
    threads = torch.get_num_threads()
    batch = tensors[0].shape[0]
    parts = min(threads, batch // _PART)
    if tensors[0].device.type != "cpu" or (parts < 2 and threads == 1):
        return solve(*tensors)
    results = _in_threads(lambda part: solve(*part), list(zip(*(t.chunk(max(parts, 1)) for t in tensors), strict=True)))
    return tuple(torch.cat(part) for part in zip(*results, strict=True))


def over_parts(solve: Callable[[Sequence[Item]], Result], items: Sequence[Item], sizes: Sequence[int]) -> list[Result]:
    """Apply ``solve`` to parts of ``items`` of about the same size, one per thread; return the results in order.

    Args:
        solve: from items to a result, without side effects, on tensors of the CPU.
        items: at least one.
        sizes: matrices that each item stands for; a thread is worth some of them.
    """
    ends = np.cumsum(sizes)
    parts = max(1, min(torch.get_num_threads(), len(items), int(ends[-1]) // _PART))
    cuts = [0, *np.searchsorted(ends, ends[-1] * np.arange(1, parts) / parts, side="left") + 1, len(items)]
    pieces = [items[a:b] for a, b in itertools.pairwise(cuts) if a < b]
    return [solve(items)] if len(pieces) == 1 and torch.get_num_threads() == 1 else _in_threads(solve, pieces)


def _in_threads(solve: Callable[[Item], Result], pieces: Sequence[Item]) -> list[Result]:
    threads = torch.get_num_threads()

    @torch.no_grad()  # the mode of the caller does not reach other threads
    def run(piece: Item) -> Result:
        return solve(piece)

    with ThreadPoolExecutor(len(pieces), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            return list(pool.map(run, pieces))
        finally:
            torch.set_num_threads(threads)  # new threads take over what was set last, wherever
