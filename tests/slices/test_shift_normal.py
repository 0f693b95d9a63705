"""The normal equations of shifts against their Jacobian."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gaugefix
from gaugefix.slices import shift_normal
from gaugefix.slices.least_norm import least_norm
from gaugefix.slices.plain_shift import plain_shift
from gaugefix.slices.shift_normal import ShiftNormal, shift_gram
from gaugefix.symmetry import Add, ShiftSymmetry, named_tensors
from gaugefix.testing import randomise_
from tests.discovery.architectures import Net
from tests.discovery.transformers_small import Block


class Embedded(nn.Module):
    """Embeddings, blocks with fused biases, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.blocks, self.norm = nn.Embedding(11, 8), Block(8, 2, 16), nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)

    def forward(self, ids):
        return self.head(self.norm(self.blocks(self.tokens(ids))))


def chain() -> Net:
    """Two maps, the first of them followed by one that has no bias."""

    def forward(s, x):
        return s.c(F.gelu(s.b(s.free(s.a(x)))))

    return Net(forward, a=nn.Linear(4, 6), free=nn.Linear(6, 5, bias=False), b=nn.Linear(5, 7), c=nn.Linear(7, 3))


def convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Conv1d(4, 6, 3, groups=2), nn.Conv1d(6, 3, 3))


MODELS = {
    "embedded": (Embedded, lambda: torch.arange(12).reshape(2, 6) % 11),
    "chain": (chain, lambda: torch.randn(3, 4)),
    "convolutions": (convolutions, lambda: torch.randn(2, 2, 16)),
}
CASES = [(name, k) for name, number in (("embedded", 4), ("chain", 2), ("convolutions", 2)) for k in range(number)]


def shift(name: str, k: int) -> tuple[ShiftSymmetry, dict[str, torch.Tensor], list[str]]:
    """One of the shifts of a model, its tensors, and what counts."""
    make, inputs = MODELS[name]
    torch.manual_seed(0)
    model = make().double()
    randomise_(model, seed=1)
    x = inputs()
    gauge = gaugefix.discover(model, (x.double() if x.is_floating_point() else x,))
    found = [s for s in gauge.applied if isinstance(s, ShiftSymmetry) and not s.conditional]
    s = found[k % len(found)]
    tensors = {n: t.detach() for n, t in named_tensors(model).items() if n in s.reads}
    return s, tensors, [n for n in s.parameters if n in dict(model.named_parameters())]


def plain(s, tensors, counted):
    return plain_shift(s, frozenset(counted), {n: tensors[n].shape for n in counted})


@pytest.mark.parametrize(("name", "k"), CASES)
def test_the_gram_is_that_of_the_jacobian(name, k):
    s, tensors, counted = shift(name, k)

    def moved(v):
        new = s.act(tensors, v)
        return torch.cat([new[n].reshape(-1) for n in counted])

    jacobian = torch.autograd.functional.jacobian(moved, torch.zeros(s.acting.n).double())
    gram = shift_gram(s, tensors, frozenset(counted))
    torch.testing.assert_close(gram, jacobian.mT @ jacobian, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "k"), CASES)
def test_the_solution_is_that_of_the_jacobian(name, k, monkeypatch):
    """v = −J⁺θ: from J, by its factors, without them, and by a division where the shift is a plain one."""
    s, tensors, counted = shift(name, k)

    def moved(v):
        new = s.act(tensors, v)
        return torch.cat([new[n].reshape(-1) for n in counted])

    zero = torch.zeros(s.acting.n).double()
    jacobian, theta = torch.autograd.functional.jacobian(moved, zero), moved(zero)
    solution = -torch.linalg.pinv(jacobian, rtol=1e-9) @ theta
    for small in (64, 0):
        monkeypatch.setattr(shift_normal, "_SMALL", small)
        normal = ShiftNormal(s, frozenset(counted))
        assert normal.small == (small > 0)
        v, step = least_norm(s, tensors, normal=normal)
        torch.testing.assert_close(v, solution, rtol=1e-9, atol=1e-10)
        assert step == pytest.approx(float((jacobian @ solution).norm() / theta.norm()), rel=1e-8)
    for given in (normal, None):
        v, step = least_norm(s, tensors, normal=given)
        torch.testing.assert_close(v, solution, rtol=1e-9, atol=1e-10)
        assert step == pytest.approx(float((jacobian @ solution).norm() / theta.norm()), rel=1e-8)
    if plain(s, tensors, counted) is None:
        assert normal._steps <= 2  # exact but for rounding
    else:
        assert normal._low is None  # nothing was factored


def test_plain_shifts_are_those_that_read_no_weight():
    found = {case: plain(*shift(*case)) is not None for case in CASES}
    assert found == {case: all(isinstance(leg, Add) for leg in shift(*case)[0].legs) for case in CASES}
    assert len(set(found.values())) == 2


@pytest.mark.parametrize(("name", "k"), CASES)
def test_a_shift_comes_nearest_to_a_reference(name, k):
    s, tensors, counted = shift(name, k)
    torch.manual_seed(2)
    goal = {n: torch.randn_like(t) for n, t in tensors.items()}
    v, _ = least_norm(s, tensors, reference=goal, normal=ShiftNormal(s, frozenset(counted)))
    moved = {**tensors, **s.act(tensors, v)}
    for direction in torch.eye(s.acting.n).double():  # orthogonal to every one
        there = s.act(moved, direction)
        assert abs(sum(((there[n] - moved[n]) * (moved[n] - goal[n])).sum() for n in counted)) < 1e-12


def test_old_factors_still_lead_to_the_solution_and_are_made_again_where_they_are_slow(monkeypatch):
    """They belong to weights that have moved on."""
    monkeypatch.setattr(shift_normal, "_SMALL", 0)
    s, tensors, counted = shift("chain", 0)
    normal = ShiftNormal(s, frozenset(counted))
    least_norm(s, tensors, normal=normal)
    kept = normal._low
    torch.manual_seed(1)
    near = {n: t + 1e-5 * torch.randn_like(t) for n, t in tensors.items()}
    far = {n: t + 3.0 * torch.randn_like(t) for n, t in tensors.items()}
    for point, same in ((near, True), (far, True), (far, False)):  # slow once, then made again
        torch.testing.assert_close(
            least_norm(s, point, normal=normal)[0], least_norm(s, point)[0], rtol=1e-7, atol=1e-9
        )
        assert (normal._low is kept) == same
    assert normal._steps <= 2


def test_coordinates_that_move_nothing_stay():
    """A singular matrix: two coordinates that only occur as their sum."""
    s, tensors, counted = shift("chain", 0)
    normal = ShiftNormal(s, frozenset(counted))
    gram = shift_gram(s, tensors, frozenset(counted))
    n = len(gram)
    both = torch.cat([torch.eye(n), torch.eye(n)]).double() @ gram @ torch.cat([torch.eye(n), torch.eye(n)]).T.double()
    normal._factor(both)
    right = torch.randn(n).double()
    solved = normal.solve(torch.cat([right, right]))
    torch.testing.assert_close(solved[:n], solved[n:])
    torch.testing.assert_close(2 * gram @ solved[:n], right)
