"""The completeness test: the number of redundant dimensions of a tiny model, from the Jacobian."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gaugefix.errors import GaugeError

_BATCHES = 4


@dataclass(frozen=True)
class Redundancy:
    """Nullity of d(outputs)/d(parameters) at a generic point.

    Args:
        nullity: number of directions in parameter space that change no output.
        parameters: number of parameters that were counted.
        gap: ratio of the smallest nonzero singular value to the largest zero one (``inf`` without zeros): the
            nullity can be trusted if it is large.
        data_dependent: how many more directions each draw of the parameters had: dead units, not symmetries.
    """

    nullity: int
    parameters: int
    gap: float
    data_dependent: tuple[int, ...] = ()


def redundancy(
    model: nn.Module,
    inputs: Callable[[int], Sequence[Any]] | Sequence[Any],
    mode: Literal["train", "eval"] = "train",
    samples: int | None = None,
    seed: int = 0,
    draws: int = 6,
) -> Redundancy:
    """Count the redundant dimensions of a tiny model in float64.

    The nullity of the Jacobian of the outputs (many samples) with respect to the trainable parameters is the number of
    continuous redundant dimensions at that point. It is larger where a unit happens to be dead for every input, which
    is no symmetry: the smallest of several draws of the parameters is the generic number, and what ``discover`` finds
    must equal it.

    Args:
        model: at most a few thousand parameters; it is copied.
        inputs: example inputs (fresh ones are drawn in their shape, the batch enlarged), or a function
            ``n -> inputs`` that draws n samples.
        mode: ``"train"`` for live batch norms, ``"eval"`` for frozen ones.
        samples: batch size; by default enough for 3 outputs per parameter.
        seed: of parameters and inputs.
        draws: number of parameter draws.

    Raises:
        GaugeError: if there is no clear gap in the singular values.
    """
    found = [_redundancy(model, inputs, mode, samples, seed + 10 * k) for k in range(draws)]
    least = min(found, key=lambda r: r.nullity)
    return replace(least, data_dependent=tuple(r.nullity - least.nullity for r in found))


def _redundancy(
    model: nn.Module,
    inputs: Callable[[int], Sequence[Any]] | Sequence[Any],
    mode: Literal["train", "eval"],
    samples: int | None,
    seed: int,
) -> Redundancy:
    model = copy.deepcopy(model).double()
    randomise_(model, seed)
    model.train(mode == "train")
    for module in model.modules():
        if isinstance(module, (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)):
            module.eval()
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = sum(p.numel() for p in named.values())
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    draw = inputs if callable(inputs) else None
    with torch.random.fork_rng():
        torch.manual_seed(seed + 2)
        probe = _flat(model(*_double(draw(4) if draw else fresh_inputs(inputs, seed, 4))))  # type: ignore[arg-type]
        if samples is None:
            samples = 4 + (3 * total * 4) // max(1, probe.numel())
        # Several batches of different spread: within one batch the statistics of a norm are constants.
        sizes = [max(4, -(-samples // _BATCHES))] * _BATCHES
        batches = [
            _double(draw(n) if draw else fresh_inputs(inputs, seed + k, n, spread=1.0 + k))  # type: ignore[arg-type]
            for k, n in enumerate(sizes)
        ]
    names = list(named)

    def outputs(*values: Tensor) -> Tensor:
        given = dict(zip(names, values, strict=True))
        return torch.cat(
            [
                _flat(torch.func.functional_call(model, given | {k: b.clone() for k, b in buffers.items()}, batch))
                for batch in batches
            ]
        )

    given = tuple(p.detach() for p in named.values())
    jacobian = torch.autograd.functional.jacobian(outputs, given)  # type: ignore[no-untyped-call]
    matrix = torch.cat([j.reshape(j.shape[0], -1) for j in jacobian], dim=1)
    used = matrix.norm(dim=0) > 1e-12 * matrix.norm(dim=0).max()
    matrix = matrix[:, used]
    matrix = matrix / matrix.norm(dim=0)
    matrix = torch.linalg.qr(matrix, mode="r").R if matrix.shape[0] > matrix.shape[1] else matrix
    values = torch.linalg.svdvals(matrix)
    values = torch.cat([values, values.new_zeros(max(0, matrix.shape[1] - len(values)))])
    return _read(values, int((~used).sum()), total)


def _read(values: Tensor, dead: int, total: int) -> Redundancy:
    """Split the singular values at their largest gap below the noise threshold."""
    floor = values[0] * 1e-15
    zero = values < values[0] * 1e-9
    nullity = int(zero.sum())
    if not nullity:
        return Redundancy(dead, total, float("inf"))
    gap = float(values[~zero].min() / values[zero].max().clamp(min=floor))
    if gap < 1e2:
        raise GaugeError(
            f"Expected a clear gap in the singular values of the Jacobian, got a ratio of {gap:.1f}. "
            "Use a larger eps in norms, more samples, or a model without saturated units."
        )
    return Redundancy(nullity + dead, total, gap)


def randomise_(model: nn.Module, seed: int = 0) -> None:
    """Draw generic parameters and statistics in place: γ = 1, β = 0 and zero biases hide false symmetries."""
    generator = torch.Generator().manual_seed(seed)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)

    with torch.no_grad():
        for parameter in {id(p): p for p in model.parameters()}.values():
            if not parameter.is_floating_point():
                continue
            fan = parameter[0].numel() if parameter.ndim > 1 else 1
            if parameter.ndim > 1:
                parameter.copy_(normal(parameter) * 1.2 / fan**0.5)
            else:
                parameter.copy_(parameter + 0.4 * normal(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.5 * normal(buffer))
            elif name.endswith("running_var"):
                buffer.copy_((0.3 * normal(buffer)).exp())


def fresh_inputs(args: Sequence[Any], seed: int = 0, batch: int | None = None, spread: float = 1.0) -> tuple[Any, ...]:
    """Draw inputs like ``args``: normal floats, whole numbers within the example's range, a new batch size."""
    generator = torch.Generator().manual_seed(seed)
    out: list[Any] = []
    for a in args:
        if not isinstance(a, Tensor) or a.ndim == 0:
            out.append(a)
            continue
        shape = (batch, *a.shape[1:]) if batch is not None else tuple(a.shape)
        if a.is_floating_point():
            out.append((spread * torch.randn(shape, generator=generator, dtype=torch.float64)).to(a.dtype))
        elif a.dtype == torch.bool:
            out.append(a if batch is None else a[:1].expand(shape))
        else:
            low, high = int(a.min()), int(a.max())
            out.append(torch.randint(low, high + 1, shape, generator=generator, dtype=torch.int64).to(a.dtype))
    return tuple(out)


def _double(args: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in args)


def _flat(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output.reshape(-1)
    items = output.values() if isinstance(output, dict) else output
    return torch.cat([_flat(o) for o in items if isinstance(o, (Tensor, tuple, list, dict))])
