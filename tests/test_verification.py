"""verify: catches what is false, names it, and leaves the model alone."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gaugefix import discover, verify
from gaugefix.errors import SymmetryError, VerificationError
from gaugefix.groups import GeneralLinear, Orthogonal, Permutations, PositiveScaling, SignedScaling, Translations
from gaugefix.symmetry import Add, Exactness, Form, GaugeGroup, Leg, LinearSymmetry, ShiftSymmetry, WriterKernel
from tests.discovery.architectures import EPS, Net, act, chain, rows


def mlp(activation: nn.Module | None = None) -> nn.Sequential:
    return chain(nn.Linear(4, 5), activation or nn.ReLU(), nn.Linear(5, 3))


def declared(group, *legs: Leg, name: str = "by hand") -> GaugeGroup:
    symmetry = LinearSymmetry(name, Exactness.EXACT, acting=group, legs=legs)
    return (
        discover(mlp(), rows(4))
        .select(lambda s: False)
        .with_symmetries(
            [symmetry],
            {
                "0.weight": (5, 4),
                "0.bias": (5,),
                "2.weight": (3, 5),
                "2.bias": (3,),
            },
        )
    )


W, B, V = (
    Leg("0.weight", np.arange(5).reshape(5, 1)),
    Leg("0.bias", np.arange(5)),
    Leg("2.weight", np.arange(5).reshape(1, 5), power=-1, axis=1),
)


class TestFalseSymmetries:
    def test_the_right_one_passes(self):
        report = verify(mlp(), declared(PositiveScaling(5), W, B, V), rows(4))
        assert report.error <= 1e-14
        assert [check.symmetry for check in report.checks] == ["all", "by hand"]

    @pytest.mark.parametrize(
        ("group", "legs"),
        [
            (PositiveScaling(5), (W, V)),  # the bias is missing
            (PositiveScaling(5), (W, B)),  # nobody takes the scale back
            (PositiveScaling(5), (W, B, Leg("2.weight", V.index, power=-2, axis=1))),  # another power
            (PositiveScaling(5), (W, B, Leg("2.weight", V.index[:, ::-1].copy(), power=-1, axis=1))),  # other units
            (SignedScaling(5), (W, B, V)),  # a ReLU is not odd
            (GeneralLinear(5), (W, B, V)),  # nor linear
            (Permutations(5), (W, B)),
        ],
        ids=["bias missing", "covector missing", "power", "wrong units", "signs", "mixing", "permutation"],
    )
    def test_a_false_one_is_named(self, group, legs):
        with pytest.raises(VerificationError) as error:
            verify(mlp(), declared(group, *legs), rows(4))
        text = str(error.value)
        assert text.startswith(f"Expected unchanged outputs for symmetry 'by hand' ({group.symbol} on 0.weight, ")
        assert "got a relative change of " in text
        assert text.endswith("leave it out with gauge.select and report the operation.")

    def test_zero_biases_do_not_hide_a_missing_bias(self):
        """Parameters are drawn again: the model at hand may be special."""
        model = mlp()
        nn.init.zeros_(model[0].bias)
        with pytest.raises(VerificationError, match="'by hand'"):
            verify(model, declared(PositiveScaling(5), W, V), rows(4))

    def test_the_false_one_among_true_ones(self):
        model = mlp()
        gauge = discover(model, rows(4))
        wrong = LinearSymmetry("wrong", Exactness.EXACT, acting=PositiveScaling(3), legs=(Leg("2.bias", np.arange(3)),))
        with pytest.raises(VerificationError, match="'wrong'"):
            verify(model, gauge.with_symmetries([wrong], {"2.bias": (3,)}), rows(4))

    def test_false_shift_and_kernel(self):
        shift = ShiftSymmetry(
            "shift",
            Exactness.EXACT,
            acting=Translations(5),
            size=5,
            steps=(),
            legs=(Add("0.bias", Form(((1.0, np.arange(5)),))),),
        )
        kernel = WriterKernel("kernel", Exactness.EXACT, weight="0.weight", axis=0, acting=Translations(4))
        for false in (shift, kernel):
            gauge = declared(PositiveScaling(5), W, B, V).select(lambda s: False).with_symmetries([false], {})
            with pytest.raises(VerificationError, match=f"'{false.name}'"):
                verify(mlp(), gauge, rows(4))

    def test_exact_in_eval_mode_only_is_caught_in_train_mode(self):
        model = chain(nn.Linear(4, 5), nn.BatchNorm1d(5, eps=EPS), nn.ReLU(), nn.Linear(5, 3))
        gauge = discover(model, rows(4))
        (one_mode,) = [s for s in gauge.symmetries if s.exactness is Exactness.ONE_MODE]
        claimed = LinearSymmetry("claimed", Exactness.EXACT, acting=one_mode.group, legs=one_mode.legs)
        with pytest.raises(VerificationError, match="'claimed'"):
            verify(model, gauge.select(lambda s: False).with_symmetries([claimed], {}), rows(4))

    def test_running_statistics_that_stay_behind_are_caught(self):
        """The bias before a batch norm is free in train mode; in eval mode the running mean has to follow."""
        model = chain(nn.Linear(4, 5), nn.BatchNorm1d(5, eps=EPS), act(), nn.Linear(5, 3))
        shift = ShiftSymmetry(
            "bias",
            Exactness.EXACT,
            acting=Translations(5),
            size=5,
            steps=(),
            legs=(Add("0.bias", Form(((1.0, np.arange(5)),))),),
        )
        gauge = discover(model, rows(4))
        verify(model, gauge, rows(4))
        with pytest.raises(VerificationError, match="'bias'"):
            verify(model, gauge.with_symmetries([shift], {}), rows(4))

    def test_dropout_in_train_mode_is_tested_for_exact_symmetries(self):
        model = chain(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 3))
        gauge = discover(model, rows(4))
        verify(model, gauge, rows(4))
        (mixing,) = [s for s in gauge.symmetries if s.group.symbol == "GL(5)"]
        claimed = LinearSymmetry("claimed", Exactness.EXACT, acting=mixing.group, legs=mixing.legs)
        with pytest.raises(VerificationError, match="'claimed'"):
            verify(model, gauge.select(lambda s: False).with_symmetries([claimed], {}), rows(4))


class TestControl:
    def test_leaving_a_leg_behind_changes_the_output(self):
        report = verify(mlp(), discover(mlp(), rows(4)), rows(4))
        controls = [check.control for check in report.checks if check.symmetry != "all"]
        assert len(controls) == 2
        assert min(controls) > 1e-3
        assert report.ineffective == ()

    def test_a_leg_that_nobody_reads_is_reported(self):
        """The columns of a weight that read zeros may do anything: the control shows that they do not matter."""
        net = Net(
            lambda s, x: s.o(F.relu(s.a(x))) + s.u(0 * x), a=nn.Linear(4, 5), o=nn.Linear(5, 3), u=nn.Linear(4, 3)
        )
        idle = LinearSymmetry(
            "idle",
            Exactness.EXACT,
            acting=PositiveScaling(5),
            legs=(
                *(
                    Leg(n, leg.index, leg.power, leg.axis)
                    for n, leg in (("a.weight", W), ("a.bias", B), ("o.weight", V))
                ),
                Leg("u.weight", np.array([[0, 1, 2, 3]]), axis=1),
            ),
        )
        shapes = {"a.weight": (5, 4), "a.bias": (5,), "o.weight": (3, 5), "u.weight": (3, 4)}
        report = verify(net, GaugeGroup((idle,), shapes), rows(4))
        assert report.ineffective == ("idle",)

    def test_a_symmetry_of_one_parameter_has_no_control(self):
        model = chain(nn.Linear(6, 5), nn.LayerNorm(5, EPS), act(), nn.Linear(5, 3))
        report = verify(model, discover(model, rows(6)), rows(6))
        control = {check.symmetry: check.control for check in report.checks}
        assert np.isnan(control["0.weight:writer"])

    def test_report_is_readable(self):
        text = str(verify(mlp(), discover(mlp(), rows(4)), rows(4)))
        assert "0:scale: error " in text
        assert "tolerance 1.0e-12" in text


class TestModelIsLeftAlone:
    @pytest.mark.parametrize("false", [False, True], ids=["passes", "raises"])
    def test_bit_for_bit(self, false):
        model = chain(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(5, 3))
        model.train()
        model[3].eval()
        args = rows(4)
        gauge = discover(model, args)
        if false:
            wrong = LinearSymmetry(
                "wrong", Exactness.EXACT, acting=PositiveScaling(3), legs=(Leg("4.bias", np.arange(3)),)
            )
            gauge = gauge.with_symmetries([wrong], {"4.bias": (3,)})
        before = {name: value.clone() for name, value in model.state_dict().items()}
        example, state = args[0].clone(), torch.get_rng_state()
        if false:
            with pytest.raises(VerificationError):
                verify(model, gauge, args)
        else:
            verify(model, gauge, args)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(args[0], example)
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert [m.training for m in model] == [True, True, True, False, True]
        assert all(p.dtype == torch.float32 and p.grad is None for p in model.parameters())

    def test_a_model_that_changes_its_input(self):
        net = Net(lambda s, x: s.o(F.relu(s.a(x.mul_(2)))), a=nn.Linear(4, 5), o=nn.Linear(5, 3))
        args = rows(4)
        gauge, example = discover(net, args), args[0].clone()
        verify(net, gauge, args)
        assert torch.equal(args[0], example)


def test_group_of_another_model():
    gauge = discover(mlp(), rows(4))
    with pytest.raises(SymmetryError, match=r"Expected a parameter '2.weight' in the model, got none"):
        verify(chain(nn.Linear(4, 5)), gauge, rows(4))


def test_one_batch_size_only():
    net = Net(lambda s, x: s.o(F.relu(s.a(x))).reshape(5, 3), a=nn.Linear(4, 5), o=nn.Linear(5, 3))
    verify(net, discover(net, rows(4)), rows(4))


def test_keyword_inputs_and_nested_outputs():
    class Keyword(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x, *, scale):
            y = self.net(x)
            return {"logits": y, "more": [y * scale, (y.argmax(-1),)]}

    model, kwargs = Keyword(), {"scale": torch.ones(())}
    gauge = discover(model, rows(4), kwargs)
    assert verify(model, gauge, rows(4), kwargs).error <= 1e-14


class Float32Norm(nn.Module):
    """Computes in float32 whatever its input is, as many language models do."""

    def forward(self, x):
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPS)).to(x.dtype)


def rotations() -> GaugeGroup:
    legs = (W, B, V)
    return declared(Orthogonal(5), *legs, name="rotation")


def test_casts_to_float32_inside_the_model_leave_no_rounding():
    model = chain(nn.Linear(4, 5), Float32Norm(), nn.Linear(5, 3))
    assert verify(model, rotations(), rows(4)).error <= 1e-14
    assert model[0].weight.dtype == torch.float32


class Attention(nn.Module):
    """Attends where ``attention_mask`` is 1, with an additive mask made from a limit of float32."""

    def __init__(self):
        super().__init__()
        self.k, self.o = nn.Linear(4, 5, bias=False), nn.Linear(4, 3)

    def forward(self, *, x, attention_mask, offset=None):
        scores = (self.k(x) @ self.k(x).mT).float()
        scores = scores + (1.0 - attention_mask[:, None].float()) * torch.finfo(torch.float32).min
        return self.o(F.softmax(scores, -1, dtype=torch.float32).to(x.dtype) @ x)


class TestKeywords:
    K = Leg("k.weight", np.arange(5).reshape(5, 1))
    MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])

    def gauge(self, group):
        symmetry = LinearSymmetry("keys", Exactness.EXACT, acting=group, legs=(self.K,))
        return GaugeGroup((symmetry,), {"k.weight": (5, 4)})

    def test_masks_stay_masks_and_inputs_are_drawn(self):
        """An example of zeros shows nothing: only fresh inputs tell the true from the false."""
        kwargs = {"x": torch.zeros(2, 5, 4), "attention_mask": self.MASK}
        assert verify(Attention(), self.gauge(Orthogonal(5)), (), kwargs).error <= 1e-14
        with pytest.raises(VerificationError, match="'keys'"):
            verify(Attention(), self.gauge(PositiveScaling(5)), (), kwargs)

    def test_the_example_serves_where_fresh_inputs_do_not(self):
        class Root(nn.Module):
            def __init__(self):
                super().__init__()
                self.net = mlp()

            def forward(self, x, *, variance):
                if not bool((variance > 0).all()):
                    raise ValueError("negative variance")
                return self.net(x) / variance.sqrt()

        kwargs = {"variance": torch.full((5, 1), 2.0)}
        gauge = discover(mlp(), rows(4))
        legs = {name: f"net.{name}" for name in gauge.shapes}
        shapes = {legs[name]: shape for name, shape in gauge.shapes.items()}
        (scale,) = [s for s in gauge.symmetries if isinstance(s.group, PositiveScaling)]
        moved = tuple(Leg(legs[leg.parameter], leg.index, leg.power, leg.axis) for leg in scale.legs)
        group = GaugeGroup((LinearSymmetry("s", Exactness.EXACT, acting=scale.group, legs=moved),), shapes)
        assert verify(Root(), group, rows(4), kwargs).error <= 1e-14

    def test_outputs_without_a_number_are_refused(self):
        kwargs = {"x": torch.full((2, 5, 4), torch.nan), "attention_mask": self.MASK}

        class Broken(Attention):
            def forward(self, **given):
                return super().forward(**given) * torch.nan

        with pytest.raises(VerificationError, match="Expected finite outputs of Broken on the example inputs, got"):
            verify(Broken(), self.gauge(Orthogonal(5)), (), kwargs)


def test_seeds_give_other_draws_with_the_same_verdict():
    gauge = discover(mlp(), rows(4))
    errors = {verify(mlp(), gauge, rows(4), seed=seed).error for seed in range(3)}
    assert max(errors) <= 1e-13
