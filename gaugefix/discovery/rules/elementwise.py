"""Elementwise maps: a channel keeps the actions that commute with the map."""

from __future__ import annotations

from dataclasses import dataclass

from gaugefix.discovery.call import Call
from gaugefix.discovery.interpreter import Pass
from gaugefix.discovery.labels import NOTHING, ODD, PERMUTE, POSITIVE
from gaugefix.discovery.rules.registry import register
from gaugefix.discovery.value import Value, values_in, without_zeros


@dataclass(frozen=True)
class Elementwise:
    """y_i = f(x_i): f commutes with ``actions``.

    Args:
        actions: POSITIVE if f(λx) = λ f(x) for λ > 0, ODD if f(−x) = −f(x), PERMUTE for any f.
    """

    actions: int

    def __call__(self, ctx: Pass, call: Call) -> Value:
        x = call.input
        others = [v for v in values_in(dict(call.arguments)) if v is not call.positional[0]]
        # A second operand that varies over channels distinguishes them: then not even an exchange commutes.
        plain = all(v.inert and all(size == 1 for size in v.shape) for v in others)
        if not plain or tuple(x.shape) != tuple(call.shape):
            ctx.freeze([x, *others], f"{call.name} with several operands")
            return Value(call.shape)
        for leg in x.legs:
            ctx.labels.restrict(leg, self.actions, f"{call.name}: {_WHY[self.actions]}")
        keeps_zero = self.actions in (POSITIVE, ODD)
        return Value(call.shape, x.legs if keeps_zero else tuple(without_zeros(leg) for leg in x.legs))


_WHY = {
    POSITIVE: "positively homogeneous",
    ODD: "odd",
    PERMUTE: "an arbitrary nonlinearity",
    NOTHING: "couples channels",
}


def break_all(ctx: Pass, call: Call) -> Value | list[Value]:
    """Operations that couple channels in a way that no continuous symmetry survives."""
    ctx.freeze(values_in(dict(call.arguments)), f"{call.name} couples channels")
    results = [Value(shape) for shape in call.shapes]
    return results if len(results) > 1 else results[0]


register(
    "aten.relu aten.leaky_relu aten.abs aten.rrelu_with_noise_functional",
    Elementwise(POSITIVE),
    "f(λx) = λ f(x) for λ > 0",
)
register(
    "aten.tanh aten.sin aten.asinh aten.atan aten.erf aten.sinh aten.arctan aten.arcsinh aten.sign",
    Elementwise(ODD),
    "f(−x) = −f(x)",
)
register(
    "aten.hardshrink aten.softshrink",
    Elementwise(ODD),
    "f(−x) = −f(x): the thresholds are symmetric",
)
register(
    "aten.gelu aten.silu aten.sigmoid aten.hardsigmoid aten.hardswish aten.softplus aten.exp aten.elu aten.selu "
    "aten.celu aten.relu6 aten.hardtanh aten.cos aten.log aten.mish aten.log_sigmoid aten.clamp aten.threshold "
    "aten.clamp_min aten.clamp_max aten.rsqrt elementwise",
    Elementwise(PERMUTE),
    "no scale and no sign commutes with f; the units stay exchangeable",
)
register(
    "aten.log_softmax aten._log_softmax aten.logsumexp aten.cumsum aten.norm "
    "aten.linalg_vector_norm aten.var aten.std aten.topk aten.sort aten.argmax "
    "aten.cosine_similarity",
    break_all,
    "couples channels nonlinearly",
)
