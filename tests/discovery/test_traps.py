"""Networks that once had a false symmetry, or nearly: each is sound, and finds what it should."""

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gaugefix import discover, verify
from gaugefix.errors import NoEffectWarning
from gaugefix.symmetry import GaugeGroup
from tests.discovery.architectures import EPS, Model, Net, parameter, rows


def sound(model: nn.Module, args: tuple[torch.Tensor, ...]) -> GaugeGroup:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoEffectWarning)
        gauge = discover(model, args)
    verify(model, gauge, args)
    return gauge


def two(function: Callable[..., torch.Tensor], out: int = 5) -> Model:
    """Two branches of five units, read together."""
    return Net(function, a=nn.Linear(4, 5), b=nn.Linear(4, 5), o=nn.Linear(out, 3)), rows(4)


def one(function: Callable[..., torch.Tensor], width: int = 6, **parts: nn.Module | nn.Parameter) -> Model:
    parts = {"a": nn.Linear(4, width), "o": nn.Linear(width, 3), **parts}
    return Net(function, **parts), rows(4)


def in_place(change: Callable[[nn.Module, torch.Tensor], object]) -> Callable[..., torch.Tensor]:
    def forward(s, x):
        h = s.n(s.a(x))
        change(s, h)
        return s.o(h)

    return forward


def test_maximum_of_two_values_is_not_a_reduction():
    net = two(lambda s, x: (lambda a, b: s.o(torch.cat([torch.max(a, b), a, b], -1)))(s.a(x), s.b(x)), 15)
    assert sound(*net).dimension == 0


def test_cast_to_whole_numbers_rounds():
    gauge = sound(*one(lambda s, x: s.o((3 * s.a(x)).long().to(x.dtype))))
    assert [s.group.symbol for s in gauge.symmetries] == ["S_6"]


def test_gl_acts_on_a_weight_with_an_offset_as_a_whole():
    net = Net(lambda s, x: s.o(F.linear(x, s.w + 0.5)), w=parameter(3, 4), o=nn.Linear(3, 5))
    gauge = sound(net, rows(4))
    assert gauge["w:mixing"].group.symbol == "GL(3)"
    assert {leg.offset for leg in gauge["w:mixing"].legs if leg.parameter == "w"} == {0.5}


def test_a_norm_that_is_used_twice_has_one_running_mean():
    net = Net(
        lambda s, x: s.o(s.n(s.a(x)) * s.n(s.b(x))),
        a=nn.Linear(4, 5),
        b=nn.Linear(4, 5),
        n=nn.BatchNorm1d(5, EPS),
        o=nn.Linear(5, 3),
    )
    gauge = sound(net, rows(4))
    (shift,) = [s for s in gauge.symmetries if s.name.endswith("shift")]
    assert set(shift.parameters) == {"a.bias", "b.bias", "n.running_mean"}
    assert shift.dimension == 5


def test_a_norm_whose_result_is_not_read_still_writes_its_statistics():
    def forward(s, x):
        h = F.leaky_relu(s.n(s.a(x)))
        s.n(h)  # updates the running statistics in train mode
        return s.o(h)

    gauge = sound(Net(forward, a=nn.Linear(4, 5), n=nn.BatchNorm1d(5, EPS), o=nn.Linear(5, 3)), rows(4))
    assert not any(s.name.endswith("scale") for s in gauge.applied)


class ByMode(nn.Module):
    """A layer norm in train mode only: the bias before it may shift in neither mode."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c, self.o = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.n = nn.LayerNorm(5, EPS)

    def forward(self, x):
        h = self.c(F.leaky_relu(self.a(x)))
        return self.o(F.leaky_relu(self.n(h) if self.training else h))


def test_both_modes_must_agree():
    gauge = sound(ByMode(), rows(4))
    assert gauge.dimension == 5  # the first hidden layer; what the norm hides is seen in eval mode
    assert {s.name for s in gauge.symmetries if "c." in s.name} == set()


class AsksForMode(nn.Module):
    """F.dropout(…, self.training): traced in both modes, counted once."""

    def __init__(self) -> None:
        super().__init__()
        self.n, self.a, self.m, self.o = nn.BatchNorm1d(4), nn.Linear(4, 5), nn.LayerNorm(5, EPS), nn.Linear(5, 3)

    def forward(self, x):
        return self.o(F.leaky_relu(self.m(F.dropout(self.a(self.n(x)), 0.1, self.training))))


def test_two_traces_count_once_and_change_no_buffer():
    model = AsksForMode()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gauge = sound(model, rows(4))
    assert {s.name: s.dimension for s in gauge.applied if s.dimension} == {
        "n:scale": 4,  # gain of the batch norm
        "m:scale": 5,
        "n.bias:shift": 4,
        "a.bias:shift": 1,
        "a.weight:writer": 4,
    }
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "change",
    [
        lambda s, h: h.view(-1).relu_(),
        lambda s, h: h[:, 1:].relu_(),
        lambda s, h: F.dropout(h, 0.5, False).relu_(),  # a dropout that is off returns its argument
        lambda s, h: h.detach().tanh_(),
    ],
    ids=["view", "part", "dropout off", "detach"],
)
def test_who_shares_memory_changes_too(change):
    """The reader kernel of the norm would be false: what it reads is no longer centred."""
    gauge = sound(*one(in_place(change), n=nn.LayerNorm(6, EPS)))
    assert not any("reader" in s.name or "writer" in s.name for s in gauge.symmetries)


def test_an_activation_in_place_on_a_view_that_nobody_reads_again_is_harmless():
    net = one(lambda s, x: s.o(F.relu(s.a(x).unflatten(1, (2, 3)), inplace=True).flatten(1)))
    assert sound(*net).dimension == 6


def test_channels_that_are_moved_apart_do_not_mix():
    def forward(s, x):
        h = s.a(x)
        return s.o(torch.cat([h[:, :1], h[:, 1:].flip(-1)], 1))

    net = Net(forward, a=nn.Conv1d(4, 2, 1, bias=False), o=nn.Conv1d(2, 3, 2))
    assert [s.group.symbol for s in sound(net, rows(4, 4)).symmetries] == ["R*^2"]


def test_channels_that_are_moved_together_do_mix():
    net = Net(
        lambda s, x: s.o(s.a(x).flip(-1).roll(1, -1).transpose(1, 2)),
        a=nn.Conv1d(4, 2, 1, bias=False),
        o=nn.Linear(2, 3),
    )
    assert sound(net, rows(4, 4)).symmetries[0].group.symbol == "GL(2)"


def test_fixed_channels_keep_the_gain_behind_them_in_place():
    """Half of the normalised channels are data: their gains scale with the reader, but do not change places."""
    net = Net(
        lambda s, x: s.o(s.n(F.hardswish(torch.cat([x + s.p, torch.zeros_like(x)], 1)))),
        p=parameter(4),
        n=nn.GroupNorm(4, 8, EPS),
        o=nn.Linear(8, 3),
    )
    gauge = sound(net, rows(4))
    assert gauge["n:scale"].group.symbol == "R*^8"
    assert not any(s.group.symbol.startswith("S_") for s in gauge.symmetries)


def test_gains_of_weight_norm_scale_but_do_not_mix():
    model = nn.Sequential(nn.Linear(4, 3), nn.utils.parametrizations.weight_norm(nn.Linear(3, 4), dim=1))
    assert not any(s.group.symbol.startswith("GL") for s in sound(model, rows(4)).symmetries)


def test_average_pooling_with_another_divisor_passes_no_constant():
    def net(divisor: int | None) -> nn.Module:
        return nn.Sequential(nn.Conv2d(2, 3, 1), nn.AvgPool2d(2, divisor_override=divisor), nn.Conv2d(3, 3, 1))

    assert sound(net(None), rows(2, 4, 4)).dimension == 9 + 3
    assert sound(net(3), rows(2, 4, 4)).dimension == 9


@pytest.mark.parametrize("norm", [nn.LayerNorm(6, EPS), nn.BatchNorm1d(6, EPS), nn.GroupNorm(1, 6, EPS)])
def test_channels_of_zeros_are_not_zero_behind_a_norm(norm):
    net = Net(lambda s, x: s.o(s.n(F.pad(s.a(x), (0, 2)))), a=nn.Linear(4, 4), n=norm, o=nn.Linear(6, 3))
    gauge = sound(net, rows(4))
    (scale,) = [s for s in gauge.applied if s.name == "n:scale"]
    assert scale.group.symbol == "R*^6"


def test_solutions_of_one_product_system_do_not_share_coordinates():
    """a·b with an odd map behind: the signs of a and of b flip the product, each on its own."""
    net = Net(lambda s, x: s.o(torch.tanh(torch.mul(*s.a(x).chunk(2, -1)))), a=nn.Linear(4, 6), o=nn.Linear(3, 2))
    gauge = sound(net, rows(4))
    signs = [s.group.symbol for s in gauge.symmetries if s.group.symbol.startswith("Z2")]
    assert signs == ["Z2^3", "Z2^3"]


def test_clamp_by_a_parameter_is_no_plain_nonlinearity():
    net = one(lambda s, x: s.o(torch.clamp(s.a(x), min=s.p)), p=parameter(6))
    assert sound(*net).applied == ()


def test_a_model_may_change_its_input_in_place():
    net = Net(lambda s, x: s.o(F.relu(s.a(x.tanh_()))), a=nn.Linear(4, 5), o=nn.Linear(5, 3))
    assert sound(net, rows(4)).dimension == 5


def test_the_gate_of_a_glu_is_exchanged_with_what_it_gates_or_not_at_all():
    """r = W x feeds a GLU and a residual sum: its second half gates the first."""

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.out = nn.Linear(3, 4, bias=False), nn.Linear(2, 3)

        def forward(self, x):
            return self.out(nn.functional.glu(self.inner(x), -1))

    torch.manual_seed(0)
    model, args = Gated(), (torch.randn(4, 3),)
    gauge = discover(model, args)
    exchanges = [s for s in gauge.symmetries if "permutation" in s.name]
    for s in exchanges:
        moved = next(leg for leg in s.legs if leg.parameter == "inner.weight")
        assert (moved.index >= 0).all(), "the gate moved without its partner"
    verify(model, gauge, args)


def test_a_value_that_is_concatenated_with_itself_shifts_once_in_each_place():
    """z = V [h, h] + c with h = W x + b: c takes V [t, t] back, not twice that."""

    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.out = nn.Linear(3, 4), nn.Linear(8, 2)

        def forward(self, x):
            h = self.inner(x)
            return self.out(torch.cat([h, h], -1))

    torch.manual_seed(0)
    model, args = Doubled(), (torch.randn(4, 3),)
    gauge = discover(model, args)
    assert [s.dimension for s in gauge.symmetries if s.name.endswith("shift")] == [4]
    verify(model, gauge, args)


def test_numbers_in_the_code_keep_all_their_digits():
    """A shift that passes 0.1 as float32 knows it is off by 1e-9, which float64 shows."""
    gauge = sound(*two(lambda s, x: s.o(s.a(x) + 0.1 * s.b(x))))
    assert sorted(s.name for s in gauge.applied) == ["a.bias:shift", "a:mixing", "b.bias:shift"]
