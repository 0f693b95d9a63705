"""Small matrices in batches, shared out over threads.

LAPACK with several threads on one matrix of size 64 spends its time on waiting (tenfold where cores are shared), and
PyTorch factorises a batch on the CPU one matrix after another. One thread per part of the batch is faster than both.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

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
    with ThreadPoolExecutor(max(parts, 1), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            results = list(pool.map(_without_gradients(solve), *(t.chunk(max(parts, 1)) for t in tensors)))
        finally:
            torch.set_num_threads(threads)  # new threads take over what was set last, wherever
    return tuple(torch.cat(part) for part in zip(*results, strict=True))


def _without_gradients(solve: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    @torch.no_grad()  # the mode of the caller does not reach other threads
    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        return solve(*tensors)

    return run
