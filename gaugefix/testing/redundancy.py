"""The completeness test: the number of redundant dimensions of a tiny model, from the Jacobian."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gaugefix.errors import GaugeError
from gaugefix.testing.double_precision import double_precision
from gaugefix.testing.dropout_off import DropoutOff
from gaugefix.testing.fresh_inputs import as_double, fresh_inputs
from gaugefix.testing.probe import tensors_in

_BATCHES = 4
_SPARE_ROWS = 32
"""Rows of the Jacobian beyond 5/4 of its columns: a random matrix of that shape is well conditioned."""


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
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    total = sum(p.numel() for p in named.values())
    device = next((p.device.type for p in named.values()), "cpu")
    buffers = {name: b.clone() for name, b in model.named_buffers()}

    def draw(n: int, k: int) -> tuple[Any, ...]:
        drawn = inputs(n) if callable(inputs) else fresh_inputs(inputs, seed + k, n, spread=1.0 + k)
        return tuple(map(as_double, drawn))

    with torch.random.fork_rng(), double_precision(device), DropoutOff():
        torch.manual_seed(seed + 2)
        probe = _flat(model(*draw(4, 0)))
        if samples is None:
            samples = 4 + (3 * total * 4) // max(1, probe.numel())
        outputs = []
        for k in range(_BATCHES):  # of different spread: within one batch the statistics of a norm are constants
            batch = draw(max(4, -(-samples // _BATCHES)), k)
            state = {**named, **{name: b.clone() for name, b in buffers.items()}}
            outputs.append(_flat(torch.func.functional_call(model, state, batch)))
        matrix = _sketch(torch.cat(outputs), list(named.values()), seed)
    used = matrix.norm(dim=0) > 1e-12 * matrix.norm(dim=0).max()
    matrix = matrix[:, used]
    values = torch.linalg.svdvals(matrix / matrix.norm(dim=0))
    values = torch.cat([values, values.new_zeros(max(0, matrix.shape[1] - len(values)))])
    return _read(values, int((~used).sum()), total)


def _sketch(outputs: Tensor, parameters: Sequence[Tensor], seed: int) -> Tensor:
    """Return the Jacobian of a few random combinations of the outputs: it has the same kernel as the whole."""
    rows = min(len(outputs), _SPARE_ROWS + 5 * sum(p.numel() for p in parameters) // 4)
    generator = torch.Generator().manual_seed(seed)
    few = rows < len(outputs)
    jacobian = []
    for k in range(rows):
        value = outputs @ torch.randn(len(outputs), generator=generator, dtype=outputs.dtype) if few else outputs[k]
        gradients = torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True)
        jacobian.append(torch.cat([g.reshape(-1) for g in gradients]))
    return torch.stack(jacobian)


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


def _flat(output: Any) -> Tensor:
    return torch.cat([t.reshape(-1) for t in tensors_in(output) if t.is_floating_point()])
