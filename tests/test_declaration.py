"""Symmetries stated by hand."""

import pytest
import torch
from torch import nn

from gaugefix import act_, declare, discover, drift, project_, verify
from gaugefix.errors import SymmetryError, VerificationError
from gaugefix.groups import GeneralLinear, Orthogonal, Permutations, PositiveScaling, SignedScaling, Signs
from gaugefix.symmetry import Exactness
from tests.slices.small_nets import build, flattened, mlp


def two_layers(activation=None):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), activation or nn.Identity(), nn.Linear(6, 2)).double()


VECTORS, COVECTORS = {"0.weight": 0, "0.bias": 0}, {"2.weight": 1}


@pytest.mark.parametrize(
    ("group", "activation"),
    [
        (PositiveScaling(6), nn.ReLU()),
        (SignedScaling(6), nn.Identity()),
        (Signs(6), nn.Tanh()),
        (Permutations(6), nn.GELU()),
        (GeneralLinear(6), nn.Identity()),
        (GeneralLinear(3, batch=2), nn.Identity()),
        (Orthogonal(6), nn.Identity()),
        (PositiveScaling(3), nn.ReLU()),  # one scale for every two neighbouring units
    ],
    ids=repr,
)
def test_true_symmetries_are_proved(group, activation):
    net = two_layers(activation)
    gauge = declare(net, group, VECTORS, COVECTORS)
    report = verify(net, gauge, (torch.randn(3, 4),))
    assert report.error < 1e-13
    assert report.ineffective == ()
    assert gauge.dimension == group.dimension
    (symmetry,) = gauge.symmetries
    assert symmetry.exactness is Exactness.EXACT
    assert symmetry.parameters == ("0.weight", "0.bias", "2.weight")


@pytest.mark.parametrize(
    ("group", "activation", "vectors", "covectors"),
    [
        (PositiveScaling(6), nn.GELU(), VECTORS, COVECTORS),  # not homogeneous
        (SignedScaling(6), nn.ReLU(), VECTORS, COVECTORS),  # not for negative factors
        (Signs(6), nn.ReLU(), VECTORS, COVECTORS),  # not odd
        (GeneralLinear(6), nn.ReLU(), VECTORS, COVECTORS),  # mixes units across a nonlinearity
        (Orthogonal(3, batch=2), nn.Tanh(), VECTORS, COVECTORS),
        (PositiveScaling(6), nn.ReLU(), {"0.weight": 0}, COVECTORS),  # the bias forgotten
        (PositiveScaling(6), nn.ReLU(), VECTORS | COVECTORS, {}),  # the wrong variance
        (PositiveScaling(2), nn.ReLU(), {"2.weight": 0, "2.bias": 0}, {}),  # outputs
        (Permutations(6), nn.ReLU(), {"0.weight": 0, "0.bias": 0}, {}),  # the reader forgotten
    ],
)
def test_false_symmetries_are_caught_by_name(group, activation, vectors, covectors):
    net = two_layers(activation)
    gauge = declare(net, group, vectors, covectors, name="mine")
    before = [p.clone() for p in net.parameters()]
    message = r"Expected unchanged outputs for symmetry 'mine' \(.* on .*\), got a relative change of .*This symmetry"
    with pytest.raises(VerificationError, match=message):
        verify(net, gauge, (torch.randn(3, 4),))
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


def test_declared_and_discovered_agree():
    net, discovered, batch = build("mlp")
    gauge = None
    for here, after, n in ((0, 2, 8), (2, 4, 7), (4, 6, 6)):
        vectors = {f"{here}.weight": 0, f"{here}.bias": 0}
        gauge = declare(net, PositiveScaling(n), vectors, {f"{after}.weight": 1}, name=f"{here}:scale", gauge=gauge)
    assert gauge.dimension == discovered.dimension
    before = net(batch)
    by_hand, found = drift(net, gauge), drift(net, discovered)
    assert by_hand.total == pytest.approx(found.total, rel=1e-12)
    assert by_hand.per_symmetry == pytest.approx(dict(found.per_symmetry), rel=1e-12)
    project_(net, gauge, "minimal_norm")
    assert drift(net, discovered).total < 1e-3
    torch.testing.assert_close(net(batch), before, rtol=1e-12, atol=1e-13)


def test_a_group_that_divides_an_axis_acts_on_runs_of_neighbours():
    """As after flatten: one channel of the convolution is a run of columns of the next linear map."""
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4, 5)).double()
    gauge = declare(net, PositiveScaling(3), {"0.weight": 0, "0.bias": 0}, {"3.weight": 1})
    assert verify(net, gauge, (torch.randn(2, 2, 4, 4),)).error < 1e-13
    (value,) = (v for _, v in gauge.random(scale=1.0).steps)
    before = net[3].weight.detach().clone()
    act_(net, gauge, gauge.random(scale=1.0))
    torch.testing.assert_close(net[3].weight.detach(), before / value.repeat_interleave(4))


def test_negative_axes_count_from_the_end():
    net = two_layers(nn.ReLU())
    gauge = declare(net, PositiveScaling(6), {"0.weight": -2, "0.bias": -1}, {"2.weight": -1})
    assert verify(net, gauge, (torch.randn(3, 4),)).error < 1e-13
    project_(net, gauge, "minimal_norm")
    incoming = net[0].weight.square().sum(1) + net[0].bias.square()
    torch.testing.assert_close(incoming, net[2].weight.square().sum(0), rtol=1e-6, atol=0)


def test_a_declared_group_extends_a_discovered_one():
    class Opaque(nn.Module):
        """The second half hides its homogeneity behind an operation that no rule knows."""

        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 2)

        def forward(self, x):
            h = self.b(self.a(x).relu())
            return self.c(torch.special.xlog1py(h.relu(), torch.ones(())))  # h·log 2

    net = Opaque().double()
    gauge = discover(net, (torch.randn(3, 4),))
    assert gauge.dimension == 6
    longer = declare(net, PositiveScaling(5), {"b.weight": 0, "b.bias": 0}, {"c.weight": 1}, gauge=gauge)
    assert longer.dimension == 11
    assert len(longer) == len(gauge) + 1
    assert gauge.dimension == 6  # frozen data: the old group is as it was
    assert verify(net, longer, (torch.randn(3, 4),)).error < 1e-13
    project_(net, longer, "minimal_norm")
    assert drift(net, longer).total < 1e-3


def test_a_name_is_made_from_the_first_vector():
    gauge = declare(two_layers(nn.ReLU()), PositiveScaling(6), VECTORS, COVECTORS)
    assert [s.name for s in gauge.symmetries] == ["0.weight:declared"]


def test_two_symmetries_of_one_name_are_refused():
    net = two_layers(nn.ReLU())
    gauge = declare(net, PositiveScaling(6), VECTORS, COVECTORS)
    with pytest.raises(SymmetryError, match=r"Expected different names for symmetries, got '0\.weight:declared' twice"):
        declare(net, PositiveScaling(6), VECTORS, COVECTORS, gauge=gauge)


@pytest.mark.parametrize(
    ("group", "vectors", "covectors", "message"),
    [
        (
            PositiveScaling(6), {"0.wieght": 0}, {},
            r"Expected the name of a parameter of the model, got '0\.wieght'\. Did you mean '0\.weight'\? Available",
        ),
        (
            PositiveScaling(6), {"0.weight": 0}, {"somewhere": 1},
            r"Expected the name of a parameter of the model, got 'somewhere'\. Available: 0\.bias, 0\.weight, 2\.bias",
        ),
        (
            PositiveScaling(6), {"0.weight": 2}, {},
            r"Expected an axis of '0\.weight' of shape \(6, 4\), got 2\. Give one of its axes",
        ),
        (
            PositiveScaling(6), {"0.bias": -2}, {},
            r"Expected an axis of '0\.bias' of shape \(6,\), got -2\. Give one of its axes",
        ),
        (
            PositiveScaling(5), VECTORS, COVECTORS,
            r"Expected a multiple of 5 \(R\+\^5\) for axis 0 of '0\.weight', got 6\. Give a group of the right size",
        ),
        (
            Permutations(3), VECTORS, COVECTORS,
            r"Expected a multiple of 3 \(S_3\) for axis 0 of '0\.weight', got 6\. Give a group of the right size",
        ),
        (
            GeneralLinear(4), VECTORS, COVECTORS,
            r"Expected a multiple of 4 \(GL\(4\)\) for axis 0 of '0\.weight', got 6",
        ),
        (
            PositiveScaling(6), {}, {},
            r"Expected at least one parameter in vectors or covectors, got none\. Name what moves",
        ),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_the_mend(group, vectors, covectors, message):
    with pytest.raises(SymmetryError, match=message):
        declare(two_layers(nn.ReLU()), group, vectors, covectors)


def test_a_tied_parameter_is_declared_under_its_first_name():
    """Two names of one tensor would move it twice."""
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    net[2].weight = net[0].weight
    vectors = {"0.weight": 0, "0.bias": 0, "2.weight": 0, "2.bias": 0}
    gauge = declare(net, PositiveScaling(4), vectors, {"2.weight": 1, "4.weight": 1}, name="twice")
    with pytest.raises(SymmetryError, match=r"Expected a tensor of its own for '2\.weight', got that of '0\.weight'"):
        act_(net, gauge, gauge.random())


def test_a_declared_group_fits_only_its_model():
    gauge = declare(two_layers(nn.ReLU()), PositiveScaling(6), VECTORS, COVECTORS)
    with pytest.raises(SymmetryError, match=r"This gauge group belongs to another model: discover it again"):
        verify(flattened(), gauge, (torch.randn(2, 2, 6, 6),))
    with pytest.raises(SymmetryError, match=r"Expected shape \(6, 4\) for '0\.weight', got \(7, 4\)"):
        project_(mlp(4, 7, 2), gauge, "minimal_norm")
