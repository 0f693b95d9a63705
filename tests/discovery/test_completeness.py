"""Found = nullity: nothing is missing, and nothing is counted twice."""

import warnings

import pytest
import torch
from torch import nn

import gaugefix
from gaugefix import discover
from gaugefix.errors import NoEffectWarning
from gaugefix.groups import Orthogonal
from gaugefix.symmetry import GaugeGroup, named_tensors
from gaugefix.testing.redundancy import Redundancy, randomise_, redundancy
from tests.discovery.architectures import ARCHITECTURES, REMAINDERS, Model


def seeded(name: str) -> Model:
    table = {**ARCHITECTURES, **{key: entry.model for key, entry in REMAINDERS.items()}}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return table[name]()


def found(model: nn.Module, args: tuple[object, ...]) -> GaugeGroup:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoEffectWarning)  # some networks of the table have no symmetry
        return discover(model, args)


def nullity(model: nn.Module, args: tuple[object, ...], expected: int) -> Redundancy:
    """The least of a few draws; of many where the few all had units that are dead or always on."""
    few = redundancy(model, args, draws=2)
    return few if few.nullity <= expected else redundancy(model, args, draws=12)


def tangents(model: nn.Module, gauge: GaugeGroup, seed: int = 0) -> torch.Tensor:
    """Directions in which the algebra of the group moves the parameters, one row each."""
    model = model.double()
    randomise_(model, seed)
    tensors = {name: tensor.detach().clone() for name, tensor in named_tensors(model).items()}
    names = [name for name, _ in model.named_parameters()]
    rows = []
    for symmetry in gauge.applied:
        group = symmetry.group
        if not group.dimension:
            continue
        identity = group.identity()

        def moved(x: torch.Tensor, symmetry=symmetry, group=group, shape=identity.shape) -> torch.Tensor:
            x = x.reshape(shape)
            if isinstance(group, Orthogonal):  # its algebra is antisymmetric
                x = x - x.mT
                if group.fixes_ones:
                    x = x - x.mean(-1, keepdim=True)
                    x = x - x.mean(-2, keepdim=True)
            update = symmetry.act(tensors, group.exp(x))
            return torch.cat([update.get(name, tensors[name]).reshape(-1) for name in names])

        start = torch.zeros(identity.numel(), dtype=torch.float64)
        rows.append(torch.autograd.functional.jacobian(moved, start).T)
    return torch.cat(rows) if rows else torch.zeros(0, 1, dtype=torch.float64)


def test_the_table_is_long_enough():
    assert len(ARCHITECTURES) >= 35


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_found_equals_nullity(name):
    model, args = seeded(name=name)
    gauge = found(model, args)
    assert gauge.dimension == nullity(model, args, gauge.dimension).nullity


@pytest.mark.parametrize("name", REMAINDERS)
def test_known_differences_are_exactly_these(name):
    model, args = seeded(name=name)
    gauge = found(model, args)
    missing = REMAINDERS[name].missing
    assert gauge.dimension + missing == nullity(model, args, gauge.dimension + missing).nullity


@pytest.mark.parametrize("name", [*ARCHITECTURES, *REMAINDERS])
def test_every_architecture_is_sound(name):
    model, args = seeded(name=name)
    gaugefix.verify(model, found(model, args), args)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "frozen layer"])
def test_generators_are_independent(name):
    model, args = seeded(name=name)
    gauge = found(model, args)
    rows = tangents(model, gauge)
    assert (int(torch.linalg.matrix_rank(rows, rtol=1e-10)) if rows.numel() else 0) == gauge.dimension


def test_an_overlap_that_is_counted_twice_shows_in_the_rank():
    model, args = seeded(name="two expanding linear maps")
    gauge = found(model, args)
    rank = int(torch.linalg.matrix_rank(tangents(model, gauge), rtol=1e-10))
    assert rank == gauge.dimension + REMAINDERS["two expanding linear maps"].missing


class TestDeadUnits:
    """A unit that is 0 for every input of a draw: a region of parameter space, not a symmetry."""

    def test_a_dead_unit_frees_its_whole_row_and_its_column(self):
        """in + 1 incoming and out outgoing directions; 1 of them (the unit's scale) is found anyway."""
        fan_in, fan_out = 4, 3
        model = nn.Sequential(nn.Linear(fan_in, 5), nn.ReLU(), nn.Linear(5, fan_out))
        alive = DeadUnit(model, dead=0)
        dead = DeadUnit(model, dead=1)
        args = (torch.randn(5, fan_in),)
        one, two = (redundancy(net, args, draws=1).nullity for net in (alive, dead))
        assert one == 5 == discover(model, args).dimension
        assert two - one == fan_in + 1 + fan_out - 1

    def test_draws_with_dead_units_are_reported_and_do_not_count(self):
        model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        args = (torch.randn(5, 2),)
        counted = redundancy(model, args, draws=12)
        assert counted.nullity == discover(model, args).dimension == 7
        assert min(counted.data_dependent) == 0 < max(counted.data_dependent)
        assert len(counted.data_dependent) == 12


class DeadUnit(nn.Module):
    """Keeps the biases of a hidden layer so low that some units never fire, and so high that the others do."""

    def __init__(self, model: nn.Sequential, dead: int) -> None:
        super().__init__()
        self.model = model
        offset = torch.zeros(model[0].out_features)
        offset[:dead] = -1e3
        self.register_buffer("offset", offset)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model[2](torch.relu(self.model[0](x) + self.offset))
