"""Symmetry.transport: how a symmetry moves what is attached, and what it does where it knows nothing."""

import copy

import pytest
import torch

from gaugefix import act_
from gaugefix.symmetry import (
    GRADIENT,
    RATIO,
    SQUARED_GRADIENT,
    Element,
    Leg,
    LinearSymmetry,
    ResidualRotation,
    ShiftSymmetry,
)
from tests.transport.attention_nets import BUILDERS, attention, weigh


def entrywise(gauge):
    """The symmetries that know their matrix on every entry."""
    return [s for s in gauge.applied if isinstance(s, (LinearSymmetry, ResidualRotation))]


@pytest.mark.parametrize("name", BUILDERS)
def test_the_square_of_one_entry_moves_like_the_entry(name):
    """A gradient with one entry has nothing to correlate with: law SQUARED_GRADIENT is exact on it."""
    net, gauge, _ = attention(name)
    tensors, generator = gauge.check(net), torch.Generator().manual_seed(0)
    element = gauge.random(scale=0.5, seed=1, discrete=True, conditional=True).values
    for s in entrywise(gauge):
        after = {n: t.detach() for n, t in {**tensors, **s.act(tensors, element[s.name])}.items()}
        for parameter in s.parameters:
            one = torch.zeros_like(after[parameter])
            touched = next(leg for leg in legs(s) if leg.parameter == parameter)
            places = torch.from_numpy(touched.index.copy()).expand(one.shape).reshape(-1).ge(0).nonzero()
            one.view(-1)[places[torch.randint(len(places), (), generator=generator)]] = 1.5
            moved = s.transport({parameter: one}, element[s.name], GRADIENT, after)[parameter]
            squared = s.transport({parameter: one.square()}, element[s.name], SQUARED_GRADIENT, after)[parameter]
            torch.testing.assert_close(squared, moved.square(), rtol=1e-12, atol=1e-14, msg=f"{s.name}: {parameter}")
            assert not torch.equal(moved, one) or not s.group.dimension


def legs(symmetry):
    return [leg if isinstance(leg, Leg) else leg[0] for leg in symmetry.legs]


def trained(name, kind, **options):
    net, gauge, batches = attention(name)
    optimizer = kind(net.parameters(), lr=1e-3, **options)
    for batch in batches:
        net.zero_grad()
        weigh(net, batch).backward()
        optimizer.step()
    return net, gauge, optimizer


def only(gauge, kind):
    return gauge.select(lambda s: isinstance(s, kind))


def test_a_rotation_moves_second_moments_leg_by_leg():
    """g = R in front of the norms and γRγ⁻¹ behind them; squared gradients of gains stay."""
    net, gauge, optimizer = trained("rotary", torch.optim.AdamW, amsgrad=True)
    element = only(gauge, ResidualRotation).random(scale=0.5, seed=1, conditional=True)
    ((_, (r,)),) = element.steps
    state = {n: copy.deepcopy(optimizer.state[p]) for n, p in net.named_parameters()}
    act_(net, gauge, element, [optimizer])
    gain = net.norm.weight.detach()
    behind = (r.T * gain / gain[:, None]).square()  # the gradient of W, (out, in), moves to G γ⁻¹Rᵀγ
    for entry in ("exp_avg_sq", "max_exp_avg_sq"):
        new = {n: optimizer.state[p][entry] for n, p in net.named_parameters()}
        torch.testing.assert_close(new["tokens.weight"], state["tokens.weight"][entry] @ r.T.square())
        torch.testing.assert_close(new["blocks.0.out.weight"], r.square() @ state["blocks.0.out.weight"][entry])
        torch.testing.assert_close(new["head.weight"], state["head.weight"][entry] @ behind)
        assert torch.equal(new["norm.weight"], state["norm.weight"][entry])


def test_a_shift_leaves_second_moments_and_moves_averages():
    """A bias that takes up a shift mixes with its weight: the squares alone do not say how."""
    net, gauge, optimizer = trained("encoder", torch.optim.Adam)
    element = only(gauge, ShiftSymmetry).random(scale=1.0, seed=1, conditional=True)
    before = {n: copy.deepcopy(optimizer.state[p]) for n, p in net.named_parameters()}
    act_(net, gauge, element, [optimizer])
    assert all(
        torch.equal(optimizer.state[p]["exp_avg_sq"], before[n]["exp_avg_sq"]) for n, p in net.named_parameters()
    )
    assert any(not torch.equal(optimizer.state[p]["exp_avg"], before[n]["exp_avg"]) for n, p in net.named_parameters())


def test_a_shift_leaves_ratios():
    net, gauge, optimizer = trained("encoder", torch.optim.RMSprop, momentum=0.9)
    before = {n: optimizer.state[p]["momentum_buffer"].clone() for n, p in net.named_parameters()}
    act_(net, gauge, only(gauge, ShiftSymmetry).random(scale=1.0, seed=1, conditional=True), [optimizer])
    assert all(torch.equal(optimizer.state[p]["momentum_buffer"], before[n]) for n, p in net.named_parameters())


def test_the_default_pulls_gradients_back_through_the_inverse():
    """As a product with the inverse transpose of the Jacobian of the step, written out."""
    net, gauge, _ = attention("encoder")
    tensors = {n: t.detach() for n, t in gauge.check(net).items()}
    for s in (s for s in gauge.applied if not isinstance(s, (LinearSymmetry, ResidualRotation))):
        value = gauge.random(scale=0.5, seed=2, conditional=True).values[s.name]
        here = {n: tensors[n] for n in s.reads}
        sizes = [t.numel() for t in here.values()]

        def step(flat, s=s, value=value, here=here, sizes=sizes):
            state = {n: part.view_as(here[n]) for n, part in zip(here, flat.split(sizes), strict=True)}
            return torch.cat([{**state, **s.act(state, value)}[n].reshape(-1) for n in here])

        flat = torch.cat([t.reshape(-1) for t in here.values()])
        jacobian = torch.func.jacrev(step)(flat)
        gradient = torch.randn(flat.shape, generator=torch.Generator().manual_seed(3), dtype=flat.dtype)
        after = {n: part.view_as(here[n]) for n, part in zip(here, step(flat).split(sizes), strict=True)}
        parts = {n: part.view_as(here[n]) for n, part in zip(here, gradient.split(sizes), strict=True)}
        moved = s.transport(parts, value, GRADIENT, after)
        expected = torch.linalg.solve(jacobian.T, gradient)
        torch.testing.assert_close(torch.cat([moved[n].reshape(-1) for n in here]), expected, rtol=1e-10, atol=1e-11)
        assert s.transport(parts, value, SQUARED_GRADIENT, after) == {}
        assert s.transport(parts, value, RATIO, after) == {}
        assert s.transport({"elsewhere": gradient}, value, GRADIENT, after) == {}


def test_act_asks_the_symmetry():
    """A subclass that knows more than the default is heard, and told where the parameters are after the step."""

    class Informed(ShiftSymmetry):
        def transport(self, tensors, value, law, at):
            if law != SQUARED_GRADIENT:
                return super().transport(tensors, value, law, at)
            return {n: t + at[n].square() for n, t in tensors.items() if n in self.parameters}

    net, gauge, optimizer = trained("encoder", torch.optim.Adam)
    shift = next(s for s in gauge.applied if isinstance(s, ShiftSymmetry))
    informed = copy.copy(shift)
    object.__setattr__(informed, "__class__", Informed)
    known = gauge.select(lambda s: False).with_symmetries([informed], {})
    before = {n: optimizer.state[net.get_parameter(n)]["exp_avg_sq"].clone() for n in shift.parameters}
    act_(net, known, Element((known.random(scale=1.0, seed=1, conditional=True).steps[0],)), [optimizer])
    for n, old in before.items():
        p = net.get_parameter(n)
        torch.testing.assert_close(optimizer.state[p]["exp_avg_sq"], old + p.detach().square())
