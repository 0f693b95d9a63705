"""Noether charges: closed forms, the law that defines them, and their conservation."""

import pytest
import torch
from torch import nn

import gaugefix
from gaugefix.functional import charge_norm, noether_charge
from gaugefix.groups import ComplexScaling, GeneralLinear
from gaugefix.symmetry import LinearSymmetry, WriterKernel
from gaugefix.testing import randomise_

INPUTS = 5


class Normed(nn.Module):
    """Scales, a GL block, a layer norm's kernels and shifts, an eps in a running variance: every kind of leg."""

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(INPUTS, 6), nn.BatchNorm1d(6), nn.Linear(6, 4)
        self.c, self.d, self.layer, self.e = nn.Linear(4, 3), nn.Linear(3, 7), nn.LayerNorm(7), nn.Linear(7, 2)

    def forward(self, x):
        return self.e(self.layer(self.d(self.c(self.b(self.norm(self.a(x)).relu())))))


def build(net):
    net = net.double()
    randomise_(net, 3)
    return net, gaugefix.discover(net, (torch.randn(4, INPUTS, dtype=torch.float64),))


def networks():
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(INPUTS, 6), nn.ReLU(), nn.Linear(6, 4, bias=False), nn.ReLU(), nn.Linear(4, 2))
    flat = nn.Sequential(
        nn.Unflatten(1, (1, INPUTS)), nn.Conv1d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(3 * (INPUTS - 1), 2)
    )
    return {
        "mlp": mlp,
        "flatten": flat,
        "normed": Normed(),
        "linear": nn.Sequential(nn.Linear(INPUTS, 3), nn.Linear(3, 2)),
    }


@pytest.mark.parametrize("name", networks())
def test_the_charge_is_the_slope_of_half_the_norm(name):
    """⟨q, x⟩ = d/dt ½‖exp(tx)θ‖² at t = 0, over what is trained, for a random direction x of every symmetry."""
    net, gauge = build(networks()[name])
    charges = noether_charge(net, gauge)
    assert charges
    generator = torch.Generator().manual_seed(0)
    buffers = dict(net.named_buffers())
    tensors = {n: t.detach() for n, t in gauge.check(net).items()}
    for symmetry_name, charge in charges.items():
        symmetry = gauge[symmetry_name]
        direction = torch.randn(charge.shape, generator=generator, dtype=torch.float64)
        offsets = {leg.parameter: leg.offset for leg in getattr(symmetry, "legs", ())}

        def energy(t, symmetry=symmetry, direction=direction, offsets=offsets):
            element = symmetry.group.exp(t * direction)
            moved = symmetry.act(tensors, element)
            kept = [(p + offsets.get(n, 0.0)).square().sum() for n, p in moved.items() if n not in buffers]
            return 0.5 * sum(kept)

        step = 1e-5
        slope = (energy(step) - energy(-step)) / (2 * step)
        assert (charge * direction).sum() == pytest.approx(float(slope), rel=1e-6, abs=1e-8)


def test_every_kind_of_symmetry_is_covered():
    net, gauge = build(Normed())
    kinds = {type(gauge[name]).__name__ for name in noether_charge(net, gauge)}
    assert kinds == {"LinearSymmetry", "WriterKernel"}
    groups = {type(gauge[name].group).__name__ for name in noether_charge(net, gauge)}
    assert {"GeneralLinear", "PositiveScaling", "Translations"} <= groups
    without = [s for s in gauge.applied if s.group.dimension and s.name not in noether_charge(net, gauge)]
    assert all(not isinstance(s, (LinearSymmetry, WriterKernel)) for s in without)


def test_balance_of_an_mlp():
    net, gauge = build(networks()["mlp"])
    charges = noether_charge(net, gauge)
    into = net[0].weight.square().sum(1) + net[0].bias.square()
    assert torch.allclose(charges["0:scale"], into - net[2].weight.square().sum(0))
    assert torch.allclose(charges["2:scale"], net[2].weight.square().sum(1) - net[4].weight.square().sum(0))
    assert all(charge.dtype == torch.float64 and not charge.requires_grad for charge in charges.values())


def test_the_groups_agree_on_what_a_charge_is():
    net, gauge = build(networks()["linear"])
    (symmetry,) = [s for s in gauge.applied if isinstance(s.group, GeneralLinear)]
    vectors = [net[0].weight.T, net[0].bias]
    assert torch.allclose(noether_charge(net, gauge)[symmetry.name], symmetry.group.charge(vectors, [net[1].weight]))


def test_minimal_norm_is_where_the_charges_of_scales_vanish():
    net, gauge = build(networks()["mlp"])
    far = charge_norm(noether_charge(net, gauge))
    gaugefix.project_(net, gauge, "minimal_norm")
    assert charge_norm(noether_charge(net, gauge)) < 1e-3 * far


@pytest.mark.parametrize("name", networks())
def test_a_gradient_step_changes_charges_by_the_square_of_its_size(name):
    """θ ← θ − η∇L: the linear term vanishes by the symmetry, Δq = η² q(∇L). Linear charges do not change at all."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(32, INPUTS, dtype=torch.float64, generator=generator)
    target = torch.randn(32, build(networks()[name])[0](x).shape[1], dtype=torch.float64, generator=generator)
    changes = []
    for lr in (1e-2, 5e-3):
        net, gauge = build(networks()[name])
        before = noether_charge(net, gauge)
        nn.functional.mse_loss(net(x), target).backward()
        torch.optim.SGD(net.parameters(), lr).step()
        after = noether_charge(net, gauge)
        changes.append({key: float((after[key] - before[key]).norm()) for key in before})
    for key, coarse in changes[0].items():
        fine = changes[1][key]
        if isinstance(gauge[key], LinearSymmetry):
            assert coarse > 1e-7
            assert coarse / fine == pytest.approx(4.0, rel=1e-5), key
        else:
            assert max(coarse, fine) < 1e-12, key


def test_no_symmetry_no_charge():
    net = nn.Linear(3, 2)
    assert noether_charge(net, gaugefix.GaugeGroup((), {})) == {}
    assert charge_norm({}) == 0.0


def test_nothing_is_changed_and_half_precision_is_summed_in_double():
    net, gauge = build(networks()["mlp"])
    exact = noether_charge(net, gauge)
    net.bfloat16()
    before = [p.clone() for p in net.parameters()]
    rounded = noether_charge(net, gauge)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert all(torch.allclose(exact[key], rounded[key], atol=0.1) for key in exact)


def test_the_charge_of_a_rotary_plane_is_that_of_its_scale():
    q, k = nn.Linear(3, 4), nn.Linear(3, 4)
    net = nn.ModuleDict({"q": q, "k": k}).double()
    planes = ComplexScaling(2)
    gauge = gaugefix.declare(net, planes, {"q.weight": 0, "q.bias": 0}, {"k.weight": 0})
    (charge,) = noether_charge(net, gauge).values()
    torch.testing.assert_close(charge, planes.charge([q.weight.T, q.bias], [k.weight.T]))
