"""The gauge of durations: slow and long, or fast and short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from gaugefix.errors import FieldError, did_you_mean
from gaugefix.ode.segmented_field import SegmentedField
from gaugefix.ode.solver import solver_of, uniform_times

DurationSlice = Literal["equal_durations", "proper_time"]
_SUBSTEPS = 64


@torch.no_grad()
def rescale_durations_(
    stack: SegmentedField, factors: Sequence[float] | Tensor, *, last: str | None = None, probe: Tensor | None = None
) -> None:
    """Move a stack along its gauge orbit, in place: f_k → f_k/c_k, δ_k → c_k δ_k.

    Weight and bias of the last layer of each field are divided by c_k. Exact: each δ_k f_k stays, and with it every
    step of a solver that takes as many in each segment. What an optimizer keeps about these weights does not move.

    Args:
        stack: fields that are modules, each with a linear layer at its end.
        factors: c_k > 0, shape (K,).
        last: name of that layer within each field, such as ``"net.2"``; by default the last ``nn.Linear``.
        probe: states, shape (..., n), on which to check that the layer does scale its field; random by default.

    Raises:
        FieldError: factors that are not positive or not as many; a field without such a layer, or that shares it with
            a field of another factor, or that does not scale with it. Then nothing is changed.

    Example:
        >>> class Autonomous(nn.Linear):
        ...     def forward(self, u, x):
        ...         return super().forward(x)
        >>> stack = SegmentedField([Autonomous(2, 2), Autonomous(2, 2)])
        >>> rescale_durations_(stack, [2.0, 0.5])
        >>> stack.durations
        tensor([2.0000, 0.5000])
    """
    values = torch.as_tensor(factors).detach().double().cpu()
    if values.shape != stack.log_durations.shape or not bool(((values > 0) & values.isfinite()).all()):
        raise FieldError(
            f"Expected {len(stack.fields)} positive numbers for factors, got {values.tolist()}. One for each segment."
        )
    layers = [_last_layer(stack, k, last) for k in range(len(stack.fields))]
    for k, layer in enumerate(layers):
        _check_sharing(stack, layers, values, k)
        _check_scaling(stack, k, layer, probe)
    for layer, factor in {id(layer): (layer, float(c)) for layer, c in zip(layers, values, strict=True)}.values():
        _divide(layer, factor)
    stack.log_durations.add_(values.log().to(stack.log_durations))


def fix_durations_(
    stack: SegmentedField,
    slice: DurationSlice = "equal_durations",
    x0: Tensor | None = None,
    *,
    last: str | None = None,
) -> Tensor:
    """Move a stack onto a slice of its durations, in place; the total of them stays.

    * ``"equal_durations"``: δ_k all equal. Then the speeds carry everything;
    * ``"proper_time"``: δ_k ∝ the length of the path in segment k (root mean square over the inputs), so that the mean
      speed is the same in all of them. Then the durations carry what can be told from them.

    Both are met by one point of each orbit. No solver that takes a number of steps in each segment gains or loses.

    Args:
        stack: see :func:`rescale_durations_`.
        slice: which.
        x0: inputs, shape (points, n); for proper time.
        last: name of the last layer within each field.

    Returns:
        The factors c_k by which the durations were multiplied, shape (K,), float64.

    Raises:
        FieldError: an unknown slice, no inputs for proper time, a segment in which nothing moves, or as
            :func:`rescale_durations_`.
    """
    if slice not in get_args(DurationSlice):
        raise FieldError(
            f"Expected a slice of durations for slice, got {slice!r}. {did_you_mean(slice, get_args(DurationSlice))}"
        )
    durations = stack.durations.detach().double()
    wanted = torch.ones_like(durations) if slice == "equal_durations" else _lengths(stack, x0).to(durations)
    factors = durations.sum() * wanted / wanted.sum() / durations
    rescale_durations_(stack, factors, last=last, probe=x0)
    return factors


@torch.no_grad()
def _lengths(stack: SegmentedField, x0: Tensor | None) -> Tensor:
    """Length of the path in each segment, shape (K,): the same for the whole orbit."""
    if x0 is None:
        raise FieldError("Expected inputs (points, n) for x0, got None. Proper time needs paths.")
    x, lengths, times = x0, [], uniform_times(_SUBSTEPS, (0.0, 1.0)).to(x0)
    for k in range(len(stack.fields)):
        states = solver_of()(stack.segment(k), x, times, method="rk4")
        lengths.append(states.diff(dim=0).flatten(1).square().mean(1).sqrt().sum())
        x = states[-1]
    found = torch.stack(lengths)
    if not bool((found.isfinite() & (found > 0)).all()):
        raise FieldError(
            f"Expected paths of finite, positive length for the segments, got {found.tolist()}. "
            "Proper time has no clock where nothing moves: take equal_durations."
        )
    return found


def _last_layer(stack: SegmentedField, k: int, last: str | None) -> nn.Linear:
    field = stack.fields[k]
    named = dict(field.named_modules()) if isinstance(field, nn.Module) else {}
    linear = {name: module for name, module in named.items() if isinstance(module, nn.Linear)}
    if last is not None and last in linear:
        return linear[last]
    if last is not None or not linear:
        raise FieldError(
            f"Expected a linear layer {'at the end' if last is None else repr(last)} of field {k} for the gauge of "
            f"durations, got {', '.join(map(repr, linear)) or 'none'}. Name one in last, or leave this field out."
        )
    return list(linear.values())[-1]


def _check_sharing(stack: SegmentedField, layers: list[nn.Linear], factors: Tensor, k: int) -> None:
    for j, other in enumerate(layers[:k]):
        if other.weight is layers[k].weight and not torch.isclose(factors[j], factors[k], rtol=1e-12):
            raise FieldError(
                f"Expected one factor for segments {j} and {k}, whose fields share a last layer, got "
                f"{float(factors[j]):.3g} and {float(factors[k]):.3g}. Give each its own."
            )


def _check_scaling(stack: SegmentedField, k: int, layer: nn.Linear, probe: Tensor | None) -> None:
    """Halve the layer and see whether the field halves; then put it back as it was (exact in floating point)."""
    if probe is None:
        generator = torch.Generator().manual_seed(0)
        probe = torch.randn(4, layer.out_features, generator=generator).to(layer.weight)
    u = torch.full((), 0.5).to(probe)
    try:
        before = _seeded(stack, k, u, probe)
    except RuntimeError as error:
        raise FieldError(
            f"Expected field {k} to take states of shape {tuple(probe.shape)} for probe, got {error}. "
            "Name its last layer in last, or pass inputs as probe."
        ) from error
    _divide(layer, 2.0)
    after = _seeded(stack, k, u, probe)
    _divide(layer, 0.5)
    off = (2 * after - before).norm()
    if not bool(off <= 64 * torch.finfo(before.dtype).eps * before.norm()):
        raise FieldError(
            f"Expected field {k} to scale with its last linear layer, got a difference of {float(off):.1e} from half "
            "of it. Name the layer in last; a field that ends in a norm or an activation has no such gauge."
        )


def _seeded(stack: SegmentedField, k: int, u: Tensor, x: Tensor) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return stack.fields[k](u, x)


def _divide(layer: nn.Linear, factor: float) -> None:
    layer.weight.div_(factor)
    if layer.bias is not None:
        layer.bias.div_(factor)
