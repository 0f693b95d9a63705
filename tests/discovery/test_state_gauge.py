"""The gauge of a neural ODE's state: its closed form, its exactness, and what training sees of it."""

import copy

import pytest
import torch
import torchdiffeq
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gaugefix
from gaugefix.errors import ProjectionWarning
from gaugefix.projection import solve
from gaugefix.symmetry import Element, GaugeGroup, named_tensors
from gaugefix.testing import Probe, relative_change
from tests.discovery.neural_odes import INPUTS, OUTPUTS, STATES, Field, NeuralOde, example, seeded

ROUNDING = 2e-16 * 1e3**4
"""Of second moments of vectors in coordinates of condition 1000, which enter with the square of theirs."""


def mixing_only(gauge: GaugeGroup) -> GaugeGroup:
    return gauge.select(lambda s: s.group.symbol.startswith("GL"))


def moments(model: NeuralOde) -> tuple[Tensor, Tensor]:
    """A = EEᵀ + eeᵀ + W₂W₂ᵀ + b₂b₂ᵀ and B = W₁ᵀW₁ + DᵀD, without the column of the time."""
    encoder, field, decoder = model.encoder, model.field, model.decoder
    reads = field.inner.weight[:, : encoder.out_features]
    vectors = [encoder.weight, encoder.bias[:, None], field.outer.weight, field.outer.bias[:, None]]
    a = sum(v.double() @ v.double().T for v in vectors)
    b = sum(w.double().T @ w.double() for w in (reads, decoder.weight))
    return a.detach(), b.detach()


def scrambled(model: nn.Module, gauge: GaugeGroup, condition: float, seed: int = 0) -> nn.Module:
    """The same function in other coordinates of the state."""
    mixing = next(s for s in gauge.applied if s.group.symbol.startswith("GL"))
    size = mixing.group.identity().shape[-1]
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.linalg.qr(torch.randn(size, size, generator=generator).double())[0] for _ in "lr")
    change = (left * torch.logspace(-0.5, 0.5, size, base=condition).double()) @ right
    gaugefix.act_(model, gauge, Element(((mixing.name, change.expand(mixing.group.identity().shape)),)))
    return model


def power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values**exponent) @ vectors.mT


class TestTheClosedForm:
    def test_minimal_norm_is_the_geometric_mean_of_the_moments(self):
        """P = GᵀG solves PAP = B: with A = LLᵀ, P = L⁻ᵀ(LᵀBL)^½L⁻¹."""
        model = seeded(lambda: NeuralOde().double())
        gauge = mixing_only(gaugefix.discover(model, example(torch.float64)))
        a, b = moments(scrambled(model, gauge, 1e3))
        factor = torch.linalg.cholesky(a)
        inverse = torch.linalg.inv(factor)
        expected = inverse.mT @ power(factor.mT @ b @ factor, 0.5) @ inverse
        ((_, element),) = solve(model, gauge, "minimal_norm").steps
        g = element.reshape(STATES, STATES)
        assert torch.linalg.norm(g.mT @ g - expected) < 1e-9 * torch.linalg.norm(expected)
        assert torch.linalg.norm(expected @ a @ expected - b) < 1e-9 * torch.linalg.norm(b)

    def test_both_moments_are_equal_afterwards_and_diagonal_in_the_spectral_gauge(self):
        model = seeded(lambda: NeuralOde().double())
        gauge = mixing_only(gaugefix.discover(model, example(torch.float64)))
        scrambled(model, gauge, 1e3)
        gaugefix.project_(model, gauge, "minimal_norm")
        a, b = moments(model)
        assert torch.linalg.norm(a - b) < ROUNDING * torch.linalg.norm(a)
        gaugefix.project_(model, gauge, "spectral")
        a, b = moments(model)
        scales = a.diagonal()
        assert torch.linalg.norm(a - torch.diag(scales)) < ROUNDING * torch.linalg.norm(a)
        assert torch.linalg.norm(a - b) < ROUNDING * torch.linalg.norm(a)
        assert bool((scales.diff() < 0).all())

    @pytest.mark.parametrize("activation", [torch.tanh, torch.relu])
    def test_it_is_the_least_norm_over_all_that_was_found(self, activation):
        """With shifts, and with scales of hidden units: no element of the group leads lower."""
        model = seeded(lambda: NeuralOde(Field(activation)).double())
        gauge = gaugefix.discover(model, example(torch.float64))
        gaugefix.project_(model, gauge, "minimal_norm")
        least = norm(model)
        for seed in range(20):
            other = copy.deepcopy(model)
            gaugefix.act_(other, gauge, gauge.random(0.02, seed=seed))
            assert norm(other) > least

    def test_every_scramble_has_one_spectral_form(self):
        model = seeded(lambda: NeuralOde().double())
        gauge = gaugefix.discover(model, example(torch.float64))
        found = []
        for seed in range(3):
            other = scrambled(copy.deepcopy(model), gauge, 1e3, seed)
            gaugefix.project_(other, gauge, "spectral")
            found.append(torch.cat([p.detach().flatten() for p in other.parameters()]))
        assert relative_change(found[:1] * 2, found[1:]) < 1e-9


def norm(model: nn.Module) -> float:
    return sum(p.detach().square().sum().item() for p in model.parameters())


class Wide(NeuralOde):
    """64 states."""

    def __init__(self, method: str = "rk4", solve=torchdiffeq.odeint) -> None:
        super().__init__(encoder=nn.Linear(INPUTS, 64), decoder=nn.Linear(64, OUTPUTS), method=method, solve=solve)
        self.field.inner, self.field.outer = nn.Linear(65, 128), nn.Linear(128, 64)


def in_double(model: NeuralOde) -> list[Tensor]:
    return Probe(copy.deepcopy(model).double(), example(torch.float64))()


class TestExactness:
    @pytest.mark.parametrize("slice", ["minimal_norm", "spectral"])
    @pytest.mark.parametrize("method", ["rk4", "dopri5"])
    def test_in_double_precision_at_condition_1000(self, method, slice):
        model = seeded(lambda: Wide(method).double())
        gauge = gaugefix.discover(model, example(torch.float64))
        scrambled(model, gauge, 1e3)
        probe = Probe(model, example(torch.float64))
        before = probe()
        gaugefix.project_(model, gauge, slice)
        assert relative_change(before, probe()) < 1e-12

    @pytest.mark.parametrize("slice", ["minimal_norm", "spectral"])
    def test_in_single_precision_at_condition_1000(self, slice):
        """What the network has become shows in double precision; the scrambled one rounds its own outputs to 1e-5."""
        model = seeded(Wide)
        gauge = gaugefix.discover(model, example())
        scrambled(model, gauge, 1e3)
        before = in_double(model)
        gaugefix.project_(model, gauge, slice)
        assert relative_change(before, in_double(model)) < 1e-6

    @pytest.mark.parametrize("solve", [torchdiffeq.odeint, torchdiffeq.odeint_adjoint])
    @pytest.mark.parametrize("method", ["euler", "rk4", "dopri5"])
    def test_in_single_precision_from_a_normal_start(self, method, solve):
        model = seeded(lambda: Wide(method, solve))
        gauge = gaugefix.discover(model, example())
        probe = Probe(model, example())
        before = probe()
        gaugefix.project_(model, gauge, "minimal_norm")
        assert relative_change(before, probe()) < 2.9e-6  # what the callbacks allow


class Fit(LightningModule):
    """A neural ODE that learns random labels."""

    def __init__(self, method: str, optimizer: type[torch.optim.Optimizer]) -> None:
        super().__init__()
        self.net, self.optimizer = NeuralOde(method=method), optimizer
        self.example_input_array = example()[0]

    def forward(self, u):
        return self.net(u)

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return self.optimizer(self.parameters(), lr=0.05)


def fit(model: Fit, callback: gaugefix.GaugeProjection) -> None:
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(
        torch.randn(64, INPUTS, generator=generator), torch.randint(OUTPUTS, (64,), generator=generator)
    )
    trainer = Trainer(
        max_steps=12,
        callbacks=[callback],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(data, batch_size=16))


class TestTheCallback:
    @pytest.mark.filterwarnings("error::gaugefix.errors.ProjectionWarning")
    @pytest.mark.parametrize("method", ["rk4", "dopri5"])
    @pytest.mark.parametrize("slice", ["minimal_norm", "spectral"])
    def test_no_projection_is_taken_back_in_single_precision(self, method, slice):
        assert issubclass(ProjectionWarning, Warning)
        callback = gaugefix.GaugeProjection(slice, every_n_steps=3)
        fit(seeded(lambda: Fit(method, torch.optim.Adam)), callback)
        assert (callback.projections, callback.rolled_back) == (5, 0)
        assert 0 < callback.invariance_error < 2.9e-6


class TestWhatTrainingSees:
    def train(self, model: NeuralOde, make, slice: str | None, gauge: GaugeGroup) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(64, INPUTS, generator=generator).double()
        labels = torch.randint(OUTPUTS, (64,), generator=generator)
        optimizer = make(model.parameters())
        for step in range(20):
            if step == 0 and slice:
                gaugefix.project_(model, gauge, slice, optimizers=[optimizer])
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        return model(inputs).detach()

    @pytest.mark.parametrize(
        ("make", "slice", "same"),
        [
            (lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9), "minimal_norm", True),
            (lambda p: torch.optim.Adam(p, lr=0.02), "spectral", True),
            (lambda p: torch.optim.Adam(p, lr=0.02), "minimal_norm", False),  # a rotation is left
            (lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9), None, False),
        ],
    )
    def test_one_projection_makes_every_scramble_the_same(self, make, slice, same):
        model = seeded(lambda: NeuralOde().double())
        gauge = gaugefix.discover(model, example(torch.float64))
        outputs = [self.train(scrambled(copy.deepcopy(model), gauge, 1e2, seed), make, slice, gauge) for seed in (0, 1)]
        change = relative_change(outputs[:1], outputs[1:])
        assert change < 1e-6 if same else change > 1e-3

    def test_the_optimizer_state_moves_along(self):
        """SGD with momentum takes the same steps in every gauge that differs by a rotation."""
        model = seeded(lambda: NeuralOde().double())
        gauge = mixing_only(gaugefix.discover(model, example(torch.float64)))
        (symmetry,) = gauge.applied
        turn = torch.linalg.qr(torch.randn(STATES, STATES, generator=torch.Generator().manual_seed(0)).double())[0]
        element = Element(((symmetry.name, turn.expand(symmetry.group.identity().shape)),))
        other = copy.deepcopy(model)
        outputs = []
        for net in (model, other):
            optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
            for step in range(6):
                if step == 3 and net is other:
                    gaugefix.act_(net, gauge, element, [optimizer])
                optimizer.zero_grad()
                net(*example(torch.float64)).square().sum().backward()
                optimizer.step()
            outputs.append(net(*example(torch.float64)).detach())
        assert relative_change(outputs[:1], outputs[1:]) < 1e-12
        assert not torch.allclose(named_tensors(model)["encoder.weight"], named_tensors(other)["encoder.weight"])
