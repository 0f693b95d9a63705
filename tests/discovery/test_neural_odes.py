"""Discovery through a solver: what acts on the states of a neural ODE, found, proved and projected."""

import copy
import functools
import sys
import threading
from dataclasses import replace

import pytest
import torch
import torchdiffeq
from torch import Tensor, nn
from torchdiffeq import odeint as imported
from torchdiffeq import odeint_adjoint

import gaugefix
from gaugefix.discovery.blockers import state_blockers
from gaugefix.discovery.capture import capture
from gaugefix.discovery.capture_flow import flows_captured
from gaugefix.errors import DiscoveryError, VerificationError
from gaugefix.symmetry import GaugeGroup
from gaugefix.testing import redundancy
from tests.discovery.neural_odes import HIDDEN, INPUTS, OUTPUTS, STATES, Field, NeuralOde, example, seeded


def groups(gauge: GaugeGroup) -> dict[str, str]:
    return {s.name: s.group.symbol for s in gauge.applied if s.group.dimension}


def discovered(model: nn.Module) -> GaugeGroup:
    return gaugefix.discover(model, example())


class TestTheStateAxis:
    def test_carries_affine_changes_and_hidden_units_their_scale(self):
        model = seeded(lambda: NeuralOde(Field(torch.relu)))
        assert groups(discovered(model)) == {
            "encoder:mixing": f"GL({STATES})",
            "field.inner:scale": f"R+^{HIDDEN}",
            "encoder.bias:shift": f"R^{STATES}",
        }

    def test_the_column_of_the_time_does_not_move(self):
        model = seeded(NeuralOde)
        gauge = discovered(model)
        before = copy.deepcopy(model.field.inner.weight)
        gaugefix.act_(model, gauge, gauge.random(0.3, seed=1))
        change = (model.field.inner.weight - before).abs().amax(0)
        assert change[:STATES].min() > 0
        assert change[STATES] == 0

    def test_a_shift_goes_from_the_encoder_into_the_biases_of_those_who_read_the_state(self):
        gauge = discovered(seeded(NeuralOde))
        shift = next(s for s in gauge.applied if s.name == "encoder.bias:shift")
        assert set(shift.parameters) == {"encoder.bias", "field.inner.bias", "decoder.bias"}

    @pytest.mark.parametrize("solve", [torchdiffeq.odeint, odeint_adjoint])
    @pytest.mark.parametrize("method", ["euler", "midpoint", "heun3", "rk4", "dopri5", "dopri8", "bosh3", None])
    def test_the_method_makes_no_difference_and_every_one_is_verified(self, solve, method):
        model = seeded(lambda: NeuralOde(solve=solve, method=method))
        gauge = discovered(model)
        assert gauge.dimension == STATES**2 + STATES
        assert gaugefix.verify(model, gauge, example()).error < 1e-13

    @pytest.mark.parametrize("method", ["explicit_adams", "implicit_adams", "scipy_solver"])
    @pytest.mark.filterwarnings("ignore:Functional iteration did not converge:UserWarning")
    def test_solvers_of_other_kinds(self, method):
        model = seeded(lambda: NeuralOde(ends=(0.0, 0.5, 1.0), method=method))
        assert gaugefix.verify(model, discovered(model), example()).error < 1e-13

    def test_observations_at_several_times(self):
        model = seeded(lambda: NeuralOde(interior=True))
        gauge = discovered(model)
        assert gauge.dimension == STATES**2 + STATES
        assert gaugefix.verify(model, gauge, example()).error < 1e-13

    def test_a_decoder_that_reads_all_times_together(self):
        decoder = nn.Sequential(nn.Flatten(), nn.Linear(2 * STATES, OUTPUTS))
        model = seeded(lambda: NeuralOde(decoder=decoder, interior=True))
        gauge = discovered(model)
        assert gauge.dimension == STATES**2 + STATES
        assert gaugefix.verify(model, gauge, example()).error < 1e-13

    def test_time_may_run_backwards(self):
        model = seeded(lambda: NeuralOde(ends=(1.0, 0.4, 0.0), method="dopri5"))
        assert gaugefix.verify(model, discovered(model), example()).error < 1e-13

    def test_steps_of_the_solver_may_be_anything_that_does_not_read_the_state(self):
        def grid(func, y0, t):
            return torch.linspace(float(t[0]), float(t[-1]), 6, dtype=t.dtype, device=y0.device)

        for options in ({"grid_constructor": grid}, {"step_size": 0.25}):
            model = seeded(lambda options=options: NeuralOde(ends=(0.0, 1.0), options=options))
            assert gaugefix.verify(model, discovered(model), example()).error < 1e-13

    def test_jumps_in_time_are_kept(self):
        options = {"jump_t": torch.tensor([0.5])}
        model = seeded(lambda: NeuralOde(method="dopri5", options=options))
        assert gaugefix.verify(model, discovered(model), example()).error < 1e-13

    def test_many_output_times_cost_no_more(self):
        few, many = (seeded(lambda n=n: NeuralOde(ends=tuple(torch.linspace(0, 1, n).tolist()))) for n in (2, 500))
        sizes = [len(list(capture(model, example())[0].nodes())) for model in (few, many)]
        assert sizes[0] == sizes[1] < 40


class Imported(NeuralOde):
    def forward(self, u):
        return self.decoder(imported(self.field, self.encoder(u), self.times, method="rk4")[-1])


class ImportedLate(NeuralOde):
    def forward(self, u):
        from torchdiffeq import odeint

        return self.decoder(odeint(self.field, self.encoder(u), self.times, method="rk4")[-1])


class AsMethod(NeuralOde):
    def velocity(self, t, x):
        return self.field(t, x)

    def forward(self, u):
        return self.decoder(torchdiffeq.odeint(self.velocity, self.encoder(u), self.times, method="rk4")[-1])


class AsClosure(NeuralOde):
    def forward(self, u):
        inner, outer = self.field.inner, self.field.outer

        def velocity(t, x):
            return outer(torch.tanh(inner(torch.cat([x, t.expand(len(x), 1)], -1))))

        return self.decoder(torchdiffeq.odeint(velocity, self.encoder(u), self.times, method="rk4")[-1])


class TimesInTheCode(NeuralOde):
    def forward(self, u):
        times = torch.tensor([0.0, 0.3, 1.0], dtype=u.dtype)
        return self.decoder(torchdiffeq.odeint(self.field, self.encoder(u), times, method="rk4")[-1])


class TestHowItIsWritten:
    @pytest.mark.parametrize("kind", [Imported, ImportedLate, AsMethod, AsClosure, TimesInTheCode])
    def test_every_style_is_found(self, kind):
        model = seeded(kind)
        gauge = discovered(model)
        assert gauge.dimension == STATES**2 + STATES
        assert gaugefix.verify(model, gauge, example()).error < 1e-13

    def test_a_stored_solver(self):
        model = seeded(lambda: NeuralOde(solve=functools.partial(odeint_adjoint, rtol=1e-5), method="bosh3"))
        assert discovered(model).dimension == STATES**2 + STATES

    def test_a_solver_that_is_imported_by_the_first_call_only(self, monkeypatch):
        """torchdiffeq is never imported on its own account; a forward that does so is traced again."""
        for name in [name for name in sys.modules if name.split(".")[0] == "torchdiffeq"]:
            monkeypatch.delitem(sys.modules, name)
        plain = nn.Linear(3, 4)
        gaugefix.discover(nn.Sequential(plain, nn.ReLU(), nn.Linear(4, 2)), (torch.randn(2, 3),))
        assert "torchdiffeq" not in sys.modules
        assert discovered(seeded(ImportedLate)).dimension == STATES**2 + STATES
        assert "torchdiffeq" in sys.modules

    def test_times_may_be_an_input(self):
        class Asked(NeuralOde):
            def forward(self, u, times):
                return self.decoder(torchdiffeq.odeint(self.field, self.encoder(u), times, method="rk4")[-1])

        model, args = seeded(Asked), (*example(), torch.tensor([0.0, 0.2, 0.9]))
        gauge = gaugefix.discover(model, args)
        assert gauge.dimension == STATES**2 + STATES
        assert gaugefix.verify(model, gauge, args).error < 1e-13

    def test_a_learned_time_is_not_moved(self):
        class Learned(NeuralOde):
            def __init__(self):
                super().__init__()
                self.end = nn.Parameter(torch.tensor([1.0]))

            def forward(self, u):
                times = torch.cat([torch.zeros_like(self.end), self.end.exp()])
                return self.decoder(torchdiffeq.odeint(self.field, self.encoder(u), times, method="rk4")[-1])

        model = seeded(Learned)
        gauge = discovered(model)
        assert not any("end" in s.parameters for s in gauge.applied)
        assert gaugefix.verify(model, gauge, example()).error < 1e-13

    def test_a_tuple_of_states(self):
        class Pair(NeuralOde):
            def forward(self, u):
                def velocity(t, state):
                    x, y = state
                    return self.field(t, x), x - y

                start = self.encoder(u)
                x, y = torchdiffeq.odeint(velocity, (start, 0.5 * start), self.times, method="rk4")
                return self.decoder(x[-1] - y[-1])

        model = seeded(lambda: Pair(Field(time=False)))
        gauge = discovered(model)
        assert groups(gauge)["encoder:mixing"] == f"GL({STATES})"
        assert gaugefix.verify(model, gauge, example()).error < 1e-13

    def test_two_solves_of_one_field(self):
        class Twice(NeuralOde):
            def forward(self, u):
                middle = torchdiffeq.odeint(self.field, self.encoder(u), self.times, method="rk4")[-1]
                return self.decoder(torchdiffeq.odeint(self.field, middle, self.times + 1, method="midpoint")[-1])

        model = seeded(Twice)
        gauge = discovered(model)
        assert groups(gauge)["encoder:mixing"] == f"GL({STATES})"
        assert gaugefix.verify(model, gauge, example()).error < 1e-13


class TestNothingIsLeftBehind:
    def test_torchdiffeq_is_as_before(self):
        forward, adjoint = (sys.modules[f"torchdiffeq._impl.{name}"] for name in ("odeint", "adjoint"))
        before = [dict(vars(module)) for module in (forward, adjoint)], dict(forward.SOLVERS)
        model = seeded(lambda: NeuralOde(method="dopri5"))
        gaugefix.verify(model, discovered(model), example())
        with pytest.raises(DiscoveryError):
            discovered(seeded(lambda: NeuralOde(solve=stopping)))
        assert [dict(vars(module)) for module in (forward, adjoint)] == before[0]
        assert before[1] == forward.SOLVERS

    def test_another_version_of_torchdiffeq_harms_no_other_model(self, monkeypatch):
        monkeypatch.delattr(sys.modules["torchdiffeq._impl.odeint"], "_check_inputs")
        model = seeded(lambda: nn.Sequential(nn.Linear(INPUTS, 4), nn.ReLU(), nn.Linear(4, 2)))
        gauge = discovered(model)
        assert gauge.dimension == 4
        assert gaugefix.verify(model, gauge, example()).error < 1e-13
        with pytest.raises(DiscoveryError, match=r"torch\.export"):
            discovered(seeded(NeuralOde))

    def test_other_threads_solve_as_ever(self):
        found = []

        def work():
            found.append(torchdiffeq.odeint(lambda t, x: -x, torch.ones(1), torch.tensor([0.0, 1.0])))
            found.append(odeint_adjoint(Decay(), torch.ones(1), torch.tensor([0.0, 1.0])))

        with flows_captured():
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        assert [states[-1].item() for states in found] == pytest.approx([0.36787944] * 2, abs=1e-6)


class Decay(nn.Module):
    def forward(self, t, x):
        return -x


def diagonal_gain(t: Tensor, x: Tensor) -> Tensor:
    return 1 + torch.sin(t * torch.arange(1.0, STATES + 1).to(x))


class Tied(NeuralOde):
    def __init__(self, *args):
        super().__init__(*args)
        del self.decoder

    def forward(self, u):
        states = torchdiffeq.odeint(self.field, self.encoder(u), self.times, method="rk4")
        return nn.functional.linear(states[-1], self.encoder.weight.T)


BROKEN = {
    # what is left of GL(n) and R^n on the state
    "a gain that depends on time": (
        lambda: NeuralOde(Field(gain=diagonal_gain)),
        {"encoder:scale": f"R*^{STATES}", "encoder.bias:shift": f"R^{STATES}"},
    ),
    "a gate of the state": (lambda: NeuralOde(Field(gain=lambda t, x: torch.sigmoid(x))), {}),
    "a norm in the field": (
        lambda: NeuralOde(Field(norm=nn.LayerNorm(STATES, elementwise_affine=False))),
        {"encoder.bias:shift": "R^1", "encoder:rotation": f"O({STATES})_1"},
    ),
    "an activation of the state": (lambda: NeuralOde(Field(norm=nn.Tanh())), {}),
    "a decoder that is not linear": (
        lambda: NeuralOde(decoder=nn.Sequential(nn.Tanh(), nn.Linear(STATES, OUTPUTS))),
        {},
    ),
    "a homogeneous decoder": (
        lambda: NeuralOde(decoder=nn.Sequential(nn.ReLU(), nn.Linear(STATES, OUTPUTS))),
        {"encoder:scale": f"R+^{STATES}"},
    ),
    "states that are the output": (lambda: NeuralOde(decoder=nn.Identity()), {}),
    "a decoder that is the encoder": (Tied, {"encoder:rotation": f"O({STATES})"}),
}


NAMED = {
    "a gain that depends on time": ["aten.mul in field: tells channels apart"],
    "a gate of the state": [
        "aten.sigmoid in field: an arbitrary nonlinearity",
        "aten.mul in field: multiplied elementwise",
    ],
    "a norm in the field": ["aten.layer_norm in field.norm: normalized by a layer norm"],
    "an activation of the state": ["aten.tanh in field.norm: odd"],
    "a decoder that is not linear": ["aten.tanh in decoder.0: odd"],
    "a homogeneous decoder": ["aten.relu in decoder.0: positively homogeneous"],
    "states that are the output": ["a state reaches the output"],
    "a decoder that is the encoder": [
        "what writes the state also reads it (a tied weight), so that only rotations are left"
    ],
}


class TestWhatBreaksIt:
    @pytest.mark.parametrize("name", BROKEN)
    def test_no_more_is_found_than_there_is(self, name):
        make, left = BROKEN[name]
        model = seeded(make)
        gauge = discovered(model)
        assert groups(gauge) == left
        assert gaugefix.verify(model, gauge, example()).error < 1e-13

    @pytest.mark.parametrize(("name", "culprit"), NAMED.items())
    def test_it_is_named(self, name, culprit):
        (states,) = state_blockers(seeded(BROKEN[name][0]), example())
        assert states.channels == STATES
        assert [why.split(" [")[0] for why in states.reasons] == culprit
        assert "odeint(" in states.solve or "self.solve(" in states.solve

    def test_the_table_says_it(self):
        gauge = discovered(seeded(BROKEN["a decoder that is not linear"][0]))
        lines = str(gauge).splitlines()
        start = lines.index("states of differential equations that do not mix:")
        assert lines[start + 1].endswith(f": {STATES} channels do not mix")
        assert lines[start + 2].startswith("    aten.tanh in decoder.0: odd")
        assert gauge.flows == gauge.select(lambda s: False).flows
        whole = discovered(seeded(NeuralOde))
        assert whole.flows == ()
        assert "differential" not in str(whole)

    def test_nothing_is_named_where_states_mix(self):
        (states,) = state_blockers(seeded(NeuralOde), example())
        assert states.reasons == ()
        assert "all 4 channels mix" in str(states)

    def test_the_line_of_code_is_shown(self):
        (states,) = state_blockers(seeded(BROKEN["a gain that depends on time"][0]), example())
        assert "self.gain(t, x) * velocity" in str(states)

    def test_states_that_start_from_data_have_no_weight_that_could_follow(self):
        class Raw(NeuralOde):
            def forward(self, u):
                return self.decoder(torchdiffeq.odeint(self.field, u[:, :STATES], self.times, method="rk4")[-1])

        (states,) = state_blockers(seeded(Raw), example())
        assert "starts from data" in states.reasons[0]

    @pytest.mark.parametrize("name", [name for name in BROKEN if "homogeneous" not in name])
    def test_mixing_the_states_anyway_changes_the_outputs(self, name):
        """The negative control: the symmetry of the plain network, on one that breaks it."""
        model, plain = seeded(BROKEN[name][0]), seeded(NeuralOde)
        mixing = next(s for s in discovered(plain).applied if s.name == "encoder:mixing")
        names = dict(model.named_parameters())
        legs = tuple(leg for leg in mixing.legs if leg.parameter in names)  # a decoder may have no weight
        gauge = GaugeGroup(
            (replace(mixing, legs=legs),), {leg.parameter: tuple(names[leg.parameter].shape) for leg in legs}
        )
        with pytest.raises(VerificationError, match="encoder:mixing"):
            gaugefix.verify(model, gauge, example())


def stopping(func, y0, t, **_):
    return torchdiffeq.odeint_event(func, y0, t[0], event_fn=lambda t, y: y.sum())[1]


def dense(func, y0, t, **_):
    return torchdiffeq.odeint_dense(func, y0, t[0], t[-1])(t[1])[None]


def by_the_field(func, y0, t):
    return torch.cat([t, func(t[0], y0)])


def by_the_state(func, y0, t):
    return torch.cat([t[:1], t[1:].clamp(min=float(y0.norm()))])


class Switched(Field):
    def forward(self, t, x):
        return super().forward(t, x) if t < 0.5 else -x


class TestWhatIsRefusedByName:
    @pytest.mark.parametrize(
        ("make", "name"),
        [
            (lambda: NeuralOde(solve=stopping), "event_fn"),
            (lambda: NeuralOde(solve=dense), "odeint_dense"),
            (lambda: NeuralOde(options={"grid_constructor": by_the_state}), "grid_constructor that reads the state"),
            (lambda: NeuralOde(options={"grid_constructor": by_the_field}), "grid_constructor that reads the state or"),
            (lambda: NeuralOde(method="rk5"), "got 'rk5'. Available: adaptive_heun, "),
            (lambda: NeuralOde(Switched()), "got Switched, which asks for a value"),
        ],
    )
    def test_with_what_to_do(self, make, name):
        with pytest.raises(DiscoveryError, match=name) as error:
            discovered(seeded(make))
        assert "torch.export" not in str(error.value)


class TestFoundIsTheNullity:
    """The Jacobian of a small net in fixed steps counts every redundant dimension."""

    @pytest.mark.parametrize(
        "make",
        [
            lambda: NeuralOde(Field(time=False)),
            lambda: NeuralOde(Field(torch.relu, time=False), method="midpoint"),
            lambda: NeuralOde(Field(time=False), interior=True),
            lambda: NeuralOde(Field(time=False, gain=lambda t, x: 1 + torch.sin(t))),
            lambda: NeuralOde(Field(time=False, gain=diagonal_gain)),
            lambda: NeuralOde(Field(time=False, gain=lambda t, x: torch.sigmoid(x))),
            lambda: NeuralOde(Field(time=False), decoder=nn.Sequential(nn.Tanh(), nn.Linear(STATES, OUTPUTS))),
            lambda: Tied(Field(time=False)),
        ],
    )
    def test_without_the_time(self, make):
        model = seeded(make)
        assert discovered(model).dimension == redundancy(model, example(), draws=2).nullity

    def test_what_the_column_of_the_time_hides(self):
        """x → x + c₁ t goes into b₂ and the time's column of W₁: one dimension a state, which is not found."""
        model = seeded(NeuralOde)
        missing = redundancy(model, example(), draws=2).nullity - discovered(model).dimension
        assert missing == STATES
        drift = torch.randn(STATES, generator=torch.Generator().manual_seed(1))
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.field.outer.bias += drift
            other.field.inner.weight[:, STATES] -= other.field.inner.weight[:, :STATES] @ drift
            other.decoder.bias -= other.decoder.weight @ drift * model.times[-1]
        assert torch.allclose(other(*example()), model(*example()), atol=1e-5)

    def test_what_zeros_at_the_start_hide(self):
        """Where channels start at 0, x → x + C a mixes them into the others: no product of groups."""
        added = 2

        class Augmented(NeuralOde):
            def forward(self, u):
                start = nn.functional.pad(self.encoder(u), (0, added))
                return self.decoder(torchdiffeq.odeint(self.field, start, self.times, method="rk4")[-1])

        model = seeded(lambda: Augmented(Field(time=False), encoder=nn.Linear(INPUTS, STATES - added)))
        gauge = discovered(model)
        assert sorted(groups(gauge).values()) == ["GL(2)", "GL(2)"]
        assert gaugefix.verify(model, gauge, example()).error < 1e-13
        (states,) = state_blockers(model, example())
        assert states.reasons == ("a weight has some of the channels only",)
        shear, shift = added * (STATES - added), STATES - added
        assert redundancy(model, example(), draws=2).nullity == gauge.dimension + shear + shift
