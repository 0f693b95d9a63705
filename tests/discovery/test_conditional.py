"""Shifts that hold where a norm leaves a constant: its Σβ/γ stands in for the bias that a map lacks."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gaugefix
from gaugefix import GaugeProjection, OrbitDrift, verification
from gaugefix.errors import SymmetryError
from gaugefix.symmetry import (
    GRADIENT,
    AbsorbAlong,
    Element,
    GaugeGroup,
    ResidualRotation,
    ShiftSymmetry,
    named_tensors,
)
from gaugefix.testing import randomise_, redundancy
from gaugefix.testing.trial import Trial
from tests.callbacks.small_fits import CLASSES, INPUTS, Fitted, data, trainer
from tests.discovery.architectures import Net, parameter
from tests.discovery.attention_parts import EPS, merge, sdpa, sound, split, x

X, LONG = (x(5),), (x(9),)


def conditional(gauge: GaugeGroup) -> dict[str, int]:
    shifts = [s for s in gauge.applied if isinstance(s, ShiftSymmetry) and s.conditional]
    return {", ".join(s.parameters): s.dimension for s in shifts}


def attention(norm: nn.Module, bias: bool = True) -> Net:
    """Projections without biases behind a norm."""

    def forward(s, x):
        h = s.n(x)
        q, k, v = (split(m(h), 2) for m in (s.q, s.k, s.v))
        return s.out(merge(sdpa(q, k, v)))

    return Net(forward, **{name: nn.Linear(6, 8, bias=False) for name in "qkv"}, n=norm, out=nn.Linear(8, 6, bias=bias))


def test_projections_of_attention_use_the_shift_of_their_norm():
    model = attention(nn.LayerNorm(6, EPS))
    gauge = sound(model, X, LONG)
    assert conditional(gauge) == {
        "n.bias, q.weight, k.weight, v.weight": 6,
        "k.weight": 8,
        "v.weight, out.bias": 8,
    }
    assert gauge.dimension == redundancy(model, X, draws=1).nullity == 64 + 6 + 22


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm(6, EPS, bias=False), nn.LayerNorm(6, EPS, elementwise_affine=False), nn.RMSNorm(6, EPS)]
)
def test_without_a_shift_there_is_no_constant(norm):
    assert not conditional(sound(attention(norm), X, LONG))


def test_a_norm_with_a_shift_and_a_frozen_gain():
    model = attention(nn.LayerNorm(6, EPS))
    model.n.weight.requires_grad_(False)
    assert sum(conditional(sound(model, X, LONG)).values()) == 22


def head(read, **more: nn.Module | nn.Parameter) -> Net:
    """A hidden layer, a norm, and what reads it."""
    parts = {"a": nn.Linear(6, 4), "n": nn.LayerNorm(4, EPS), "o": nn.Linear(4, 3, bias=False)}
    return Net(lambda s, x: read(s, s.n(F.gelu(s.a(x)))), **{**parts, **more})


OTHERS = {
    "a ReLU": lambda s, h: s.o(F.relu(h)),
    "a factor for each channel": lambda s, h: s.o(h * torch.tensor([1.0, 2.0, 1.0, 2.0]).to(h)),
    "a sum with data": lambda s, h: s.o(h + h.detach().square()),
    "a part of the channels": lambda s, h: s.o(F.pad(h[..., 1:], (1, 0))),
    "channels in another order": lambda s, h: s.o(h.flip(-1)),
    "a weight that is used twice": lambda s, h: s.o(h) + s.o(h.tanh()),
    "a weight with another on top": lambda s, h: F.linear(h, s.o.weight + s.w),
    "a transposed weight": lambda s, h: h @ s.w[:3].t(),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_readers_have_no_constant(name):
    gauge = sound(head(OTHERS[name], w=parameter(3, 4)), X, LONG)
    assert not any({"o.weight", "w"} & set(names.split(", ")) for names in conditional(gauge))


READERS = {
    "linear": lambda s, h: s.o(h),
    "matmul": lambda s, h: h @ s.w,
    "a transposed product": lambda s, h: h @ s.o.weight.t(),
    "a reshaped value": lambda s, h: s.o(h.unflatten(1, (1, -1))),
    "a mean over positions": lambda s, h: s.o(h.transpose(0, 1)),
}


@pytest.mark.parametrize("name", READERS)
def test_readers(name):
    gauge = sound(head(READERS[name], w=parameter(4, 3)), X)
    weight = "w" if name == "matmul" else "o.weight"
    assert conditional(gauge) == {f"n.bias, {weight}": 4}


def test_tied_weights_do_not_shift():
    """A head that is an embedding too."""

    def forward(s, ids):
        return s.n(F.gelu(s.a(s.tokens(ids)))) @ s.tokens.weight.t()

    model = Net(forward, tokens=nn.Embedding(7, 4), a=nn.Linear(4, 4), n=nn.LayerNorm(4, EPS))
    gauge = sound(model, (torch.arange(6).reshape(2, 3),), (torch.arange(14).reshape(2, 7) % 7,))
    assert not conditional(gauge)


class TestActing:
    def gauge(self) -> tuple[nn.Module, ShiftSymmetry, GaugeGroup]:
        model = head(lambda s, h: s.o(h)).double()
        randomise_(model)
        gauge = gaugefix.discover(model, (x(5).double(),))
        (shift,) = (s for s in gauge.applied if isinstance(s, ShiftSymmetry) and s.conditional)
        return model, shift, gauge.select(lambda s: s is shift)

    def test_one_after_the_other_is_the_sum(self):
        model, s, _ = self.gauge()
        state = {name: t.detach() for name, t in named_tensors(model).items()}
        a, b = torch.randn(2, 4, dtype=torch.float64) * 0.2
        one = s.act({**state, **s.act(state, a)}, b)
        torch.testing.assert_close(one, s.act(state, a + b), rtol=1e-12, atol=1e-12)

    def test_gradients_are_those_at_the_new_point(self):
        """Those of the gain too, which the shift only reads."""
        model, s, gauge = self.gauge()
        inputs, targets = x(5).double(), torch.randn(3, 5, 3, dtype=torch.float64)

        def gradients() -> dict[str, Tensor]:
            model.zero_grad()
            F.mse_loss(model(inputs), targets).backward()
            return {name: p.grad.clone() for name, p in model.named_parameters()}

        before, value = gradients(), 0.3 * torch.randn(4, dtype=torch.float64)
        gaugefix.act_(model, gauge, Element(((s.name, value),)))
        carried = {name: p.grad.clone() for name, p in model.named_parameters()}
        at = {name: t.detach() for name, t in named_tensors(model).items()}
        moved = {**before, **s.transport(before, value, GRADIENT, at)}
        expected = gradients()
        largest = max(float(g.norm()) for g in expected.values())
        for name, gradient in expected.items():
            assert float((carried[name] - gradient).norm()) < 1e-12 * largest, name
            assert float((moved[name] - gradient).norm()) < 1e-12 * largest, name
        assert float((before["n.weight"] - expected["n.weight"]).norm()) > 1e-3 * largest

    def zero(self, change, match: str) -> None:
        model, _, gauge = self.gauge()
        with torch.no_grad():
            change(model.n)
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(SymmetryError, match=match):
            gaugefix.act_(model, gauge, gauge.random(conditional=True))
        assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())

    def test_no_constant_is_an_error(self):
        self.zero(lambda n: n.bias.zero_(), "Expected Σβ/γ away from 0 for the norm of 'n.bias', got 0.*gauge.select")

    def test_a_gain_of_zero_is_an_error(self):
        self.zero(lambda n: n.weight[2].zero_(), r"Expected gains other than 0 in 'n.weight', got 1 zeros.*'o.weight'")

    def test_no_constant_after_the_shift_is_an_error(self):
        model, s, _ = self.gauge()
        (leg,) = (leg for leg in s.legs if isinstance(leg, AbsorbAlong))
        state = {name: t.detach() for name, t in named_tensors(model).items()}
        state["n.weight"], state["n.bias"] = torch.ones(4).double(), torch.tensor([1.0, 0.0, 0.0, 0.0]).double()
        assert leg.gain == "n.weight"
        with pytest.raises(SymmetryError, match="Expected Σβ/γ away from 0"):
            s.act(state, torch.tensor([-1.0, 0.0, 0.0, 0.0]).double())

    @pytest.mark.parametrize(
        ("dtype", "refused"), [(torch.float64, False), (torch.float32, False), (torch.bfloat16, True)]
    )
    def test_a_constant_near_zero_is_refused_where_half_of_the_digits_would_go(self, dtype, refused):
        model, s, _ = self.gauge()
        state = {name: t.detach() for name, t in named_tensors(model).items()}
        state["n.weight"], state["n.bias"] = torch.ones(4).double(), torch.full((4,), 0.005).double()
        state = {name: t.to(dtype) for name, t in state.items()}
        value = torch.tensor([0.3, -0.3, 0.2, -0.2]).double()  # κ stays 0.02
        assert 190 < s.strain(state, value) < 230  # ‖k‖‖x‖/κ = 2·√(4 + 0.26)/0.02
        if dtype == torch.bfloat16:
            with pytest.raises(SymmetryError, match=r"grow by 2\.1e\+02 \(torch.bfloat16 bears 1e\+01\)"):
                s.act(state, value)
        else:
            s.act(state, value)


def test_random_elements_fit_a_new_model():
    """Its β is zero, where conditional shifts have no constant; they are drawn when asked for."""
    model = head(lambda s, h: s.o(h))
    gauge = gaugefix.discover(model, X)
    assert conditional(gauge)
    expected = model(*X)
    gaugefix.act_(model, gauge, gauge.random())
    torch.testing.assert_close(model(*X), expected, rtol=1e-4, atol=1e-5)
    drawn = set(gauge.random(conditional=True).values) - set(gauge.random().values)
    assert drawn == {s.name for s in gauge.applied if s.conditional}


def test_verify_takes_elements_that_do_not_amplify_rounding(monkeypatch):
    """Of several; with one only, an element that brings Σβ/γ near zero would count as a false symmetry."""
    model, strains = head(lambda s, h: s.o(h)), []
    gauge = gaugefix.discover(model, X)
    for draws in (1, 8):
        monkeypatch.setattr(verification, "_DRAWS", draws)
        strains.append([])
        for seed in range(40):
            trial = Trial(model, X, {}, seed)
            element = verification._draw(trial, gauge, 0.3, seed + 1)
            strains[-1].append(verification._strain(trial, gauge, element))
    assert max(strains[1]) < 30 < 60 < max(strains[0])


class Conditional(nn.Module):
    """Its readers have no bias, its stream rotates."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n, self.o = nn.Linear(INPUTS, 4), nn.LayerNorm(4, EPS), nn.Linear(4, CLASSES, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.n(self.a(x)))


class TestCallbacks:
    @pytest.mark.parametrize("kind", [GaugeProjection, OrbitDrift])
    @pytest.mark.parametrize("asked", [False, True])
    def test_left_out_unless_asked_for(self, kind, asked):
        torch.manual_seed(0)
        callback = kind(every_n_steps=2, conditional=asked)
        trainer(callback, max_steps=3).fit(Fitted(Conditional()), data())
        kinds = {type(s) for s in callback.gauge.applied if s.conditional}
        assert kinds == ({ShiftSymmetry, ResidualRotation} if asked else set())

    def test_minimal_norm_leaves_them_alone(self):
        model = Conditional()
        randomise_(model)
        gauge = gaugefix.discover(model, (torch.randn(3, INPUTS),))
        assert any(s.conditional for s in gauge.applied)
        element = gaugefix.project_(copy.deepcopy(model), gauge, "minimal_norm")
        assert not any(gauge[name].conditional for name, _ in element.steps)
