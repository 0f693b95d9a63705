"""The laws of a group, its action and its charge, over every group. A new group without a case fails here."""

import dataclasses
import importlib
import inspect
import pkgutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gaugefix.groups
from gaugefix.errors import GroupError
from gaugefix.groups import (
    ALL_GROUPS,
    ComplexScaling,
    DiagonalGroup,
    GeneralLinear,
    Group,
    MatrixGroup,
    Orthogonal,
    Permutations,
    PositiveScaling,
    SignedScaling,
    Signs,
    Translations,
)

CASES = {
    PositiveScaling: [PositiveScaling(1), PositiveScaling(7)],
    SignedScaling: [SignedScaling(1), SignedScaling(6)],
    Signs: [Signs(1), Signs(6)],
    GeneralLinear: [GeneralLinear(1), GeneralLinear(4), GeneralLinear(3, batch=2)],
    ComplexScaling: [ComplexScaling(), ComplexScaling(3)],
    Orthogonal: [
        Orthogonal(1),
        Orthogonal(4),
        Orthogonal(3, batch=2),
        Orthogonal(1, fixes_ones=True),
        Orthogonal(2, fixes_ones=True),
        Orthogonal(4, batch=2, fixes_ones=True),
    ],
    Permutations: [Permutations(1), Permutations(6)],
    Translations: [Translations(1), Translations(5)],
}
SYMBOLS = {
    PositiveScaling(7): "R+^7",
    SignedScaling(6): "R*^6",
    Signs(6): "Z2^6",
    GeneralLinear(4): "GL(4)",
    GeneralLinear(3, batch=2): "GL(3)^2",
    ComplexScaling(): "GL(1,C)",
    ComplexScaling(8): "GL(1,C)^8",
    Orthogonal(4): "O(4)",
    Orthogonal(4, batch=2, fixes_ones=True): "O(4)_1^2",
    Permutations(6): "S_6",
    Translations(5): "R^5",
}
NON_ELEMENTS = [
    (PositiveScaling(2), torch.tensor([1.0, -1.0])),
    (PositiveScaling(2), torch.tensor([1.0, torch.nan])),
    (PositiveScaling(2), torch.tensor([1, 2])),
    (SignedScaling(2), torch.tensor([1.0, 0.0])),
    (SignedScaling(2), torch.tensor([1.0, -torch.inf])),
    (Signs(2), torch.tensor([1.0, 0.5])),
    (Signs(2), torch.tensor([1, -1])),
    (GeneralLinear(2), torch.ones(1, 2, 2)),
    (GeneralLinear(2), torch.full((1, 2, 2), torch.nan)),
    (GeneralLinear(2), torch.eye(2, dtype=torch.bfloat16)[None]),
    (ComplexScaling(), torch.zeros(1, 2, 2)),
    (ComplexScaling(), torch.diag(torch.tensor([1.0, -1.0]))[None]),
    (ComplexScaling(), torch.tensor([[[1.0, 1.0], [1.0, 1.0]]])),
    (ComplexScaling(), torch.full((1, 2, 2), torch.inf)),
    (Orthogonal(2), 2 * torch.eye(2)[None]),
    (Orthogonal(2), torch.tensor([[[1.0, 1.0], [0.0, 1.0]]])),
    (Orthogonal(2, fixes_ones=True), torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])),
    (Permutations(3), torch.tensor([0, 0, 2])),
    (Permutations(3), torch.tensor([1, 2, 3])),
    (Permutations(3), torch.tensor([0.0, 1.0, 2.0])),
    (Translations(2), torch.tensor([0.0, torch.inf])),
    (Translations(2), torch.tensor([0, 1])),
]
WITHOUT_LOGARITHM = [
    (SignedScaling(2), torch.tensor([1.0, -1.0])),
    (Signs(2), torch.tensor([1.0, -1.0])),
    (GeneralLinear(1), torch.tensor([[[-2.0]]])),
    (GeneralLinear(2), torch.diag(torch.tensor([-2.0, 1.0]))[None]),
    (GeneralLinear(2), torch.tensor([[[-2.0, 1.0], [0.0, -2.0]]])),
    (GeneralLinear(2, batch=2), torch.stack([torch.eye(2), torch.tensor([[-2.0, 1.0], [0.0, 1.0]])])),
    (ComplexScaling(2), torch.stack([torch.eye(2), -2.0 * torch.eye(2)])),
    (Orthogonal(2), torch.diag(torch.tensor([-1.0, 1.0]))[None]),
    (Orthogonal(2), -torch.eye(2)[None]),
    (Orthogonal(2, fixes_ones=True), torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])),
    (Permutations(3), torch.tensor([1, 0, 2])),
]
GROUPS = [pytest.param(group, id=repr(group)) for groups in CASES.values() for group in groups]
POWERS = [1, -1]

over_groups = pytest.mark.parametrize("group", GROUPS)
many_seeds = given(seed=st.integers(0, 2**31))
few = settings(max_examples=12)


def concrete_groups() -> set[type[Group]]:
    for module in pkgutil.iter_modules(gaugefix.groups.__path__, "gaugefix.groups."):
        importlib.import_module(module.name)
    found, queue = set(), [Group]
    while queue:
        queue += (children := queue.pop().__subclasses__())
        found |= {c for c in children if not inspect.isabstract(c) and c.__module__.startswith("gaugefix.")}
    return found


def source(seed):
    return torch.Generator().manual_seed(seed)


def elements(group, seed, count, scale=0.4):
    generator = source(seed)
    return [group.random(scale, generator) for _ in range(count)]


def algebra_vector(group, seed, scale=0.4):
    """A random vector of the algebra, in the shape that log gives."""
    x = group.log(group.identity())
    x = scale * torch.randn(x.shape, generator=source(seed), dtype=torch.float64)
    return x / group.n**0.5 if isinstance(group, GeneralLinear) else to_algebra(group, x)


def to_algebra(group, x):
    if isinstance(group, ComplexScaling):
        j = x.new_tensor([[0, -1], [1, 0]])
        return (x - j @ x @ j) / 2  # the part that commutes with j
    if not isinstance(group, Orthogonal):
        return x
    p = torch.eye(group.n, dtype=x.dtype) - (1 / group.n if group.fixes_ones else 0)
    return p @ (x - x.mT) / 2 @ p


def generators(group):
    shape = group.log(group.identity()).shape
    return [to_algebra(group, unit.reshape(shape)) for unit in torch.eye(shape.numel(), dtype=torch.float64)]


def legs(group, seed, *shapes):
    """Random tensors whose last axis carries the group."""
    generator = source(seed + 1)
    return [torch.randn(*shape, group.coordinates, generator=generator, dtype=torch.float64) for shape in shapes]


def observable(group, vector, covector):
    """What the group leaves unchanged: a contraction, for translations a sum."""
    if isinstance(group, Translations):
        return vector + covector
    return torch.einsum("...i,...i->...", vector, covector)


def assert_near(actual, expected, size):
    """Equal up to a thousand roundings per entry that is summed."""
    assert actual.shape == expected.shape
    bound = 1e3 * size * torch.finfo(torch.float64).eps
    torch.testing.assert_close(actual, expected, rtol=bound, atol=bound)


def assert_same(group, a, b):
    group.check(a)
    assert_near(a, b, group.coordinates)


# The table


def test_every_group_has_a_case():
    assert concrete_groups() == set(CASES)
    assert all(groups and all(type(group) is kind for group in groups) for kind, groups in CASES.items())


def test_every_group_is_exported_once():
    assert len(ALL_GROUPS) == len(set(ALL_GROUPS))
    assert set(ALL_GROUPS) == concrete_groups()
    assert {kind.__name__ for kind in ALL_GROUPS} <= set(gaugefix.groups.__all__)
    assert all(hasattr(gaugefix.groups, name) for name in gaugefix.groups.__all__)


@pytest.mark.parametrize("kind", ALL_GROUPS)
@pytest.mark.parametrize("size", [0, -3])
def test_bad_sizes_are_refused(kind, size):
    sizes = {field.name for field in dataclasses.fields(kind) if field.init} - {"fixes_ones"}
    assert sizes
    for argument in sizes:
        with pytest.raises(GroupError, match=rf"{kind.__name__}, got {argument}={size}\."):
            kind(**dict.fromkeys(sizes, 2) | {argument: size})


@over_groups
def test_groups_are_frozen_data(group):
    assert group == dataclasses.replace(group)
    assert hash(group) == hash(dataclasses.replace(group))
    with pytest.raises(dataclasses.FrozenInstanceError):
        group.n = 3


@pytest.mark.parametrize(("group", "symbol"), SYMBOLS.items())
def test_symbols(group, symbol):
    assert group.symbol == symbol


# The group


@over_groups
@many_seeds
@few
def test_identity_associativity_and_inverse(group, seed):
    a, b, c = elements(group, seed, 3)
    e = group.identity()
    assert tuple(a.shape) == group.shape == tuple(e.shape)
    assert_same(group, group.compose(a, e), a)
    assert_same(group, group.compose(e, a), a)
    assert_same(group, group.compose(group.compose(a, b), c), group.compose(a, group.compose(b, c)))
    assert_same(group, group.compose(a, group.inverse(a)), e)
    assert_same(group, group.compose(group.inverse(a), a), e)


def test_a_reflection_from_nearly_equal_draws_fixes_the_ones():
    """A mean is taken off two numbers that nearly agree: what is left is mostly rounding."""
    group = Orthogonal(2, fixes_ones=True)
    for element in elements(group, 165862324, 3):
        group.check(element)


@over_groups
@many_seeds
@few
def test_exp_and_log_are_inverse(group, seed):
    x = algebra_vector(group, seed)
    a = group.exp(x)
    assert_near(group.log(a), x, group.coordinates)
    assert_same(group, group.exp(group.log(a)), a)


@over_groups
@many_seeds
@few
def test_exp_is_a_one_parameter_subgroup(group, seed):
    x = algebra_vector(group, seed)
    assert_same(group, group.exp(0 * x), group.identity())
    assert_same(group, group.compose(group.exp(0.3 * x), group.exp(0.7 * x)), group.exp(x))
    assert_same(group, group.exp(-x), group.inverse(group.exp(x)))


@over_groups
def test_dimension_is_the_rank_of_the_algebra(group):
    logs = [group.log(group.exp(algebra_vector(group, seed))).reshape(-1) for seed in range(group.coordinates**2 + 1)]
    assert torch.linalg.matrix_rank(torch.stack(logs), atol=1e-9).item() == group.dimension


@pytest.mark.parametrize(("group", "element"), WITHOUT_LOGARITHM)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_is_refused_where_there_is_none(group, element, dtype):
    element = element.to(dtype) if element.is_floating_point() else element
    group.check(element)
    with pytest.raises(GroupError, match="logarithm") as error:
        group.log(element)
    assert group.symbol in str(error.value)


@over_groups
@many_seeds
@few
def test_distance_is_a_left_invariant_metric(group, seed):
    if isinstance(group, GeneralLinear):  # far from e the logarithm, hence the distance, may be missing
        a, b, c = elements(group, seed, 3, scale=0.15)
    else:
        a, b, c = elements(group, seed, 3, scale=1.0)
    e = group.identity()
    bound = 1e-12 * group.coordinates
    assert group.distance(a, a) < bound
    assert group.distance(a, b).shape == ()
    assert (group.distance(a, b) > bound) == (not torch.allclose(a, b))
    assert_near(group.distance(b, a), group.distance(a, b), group.coordinates)
    assert_near(group.distance(group.compose(c, a), group.compose(c, b)), group.distance(a, b), group.coordinates)
    assert_near(group.distance(e, group.compose(group.inverse(a), b)), group.distance(a, b), group.coordinates)
    if not isinstance(group, GeneralLinear):  # tests/groups/test_general_linear.py has a counterexample
        assert group.distance(a, c) <= group.distance(a, b) + group.distance(b, c) + bound


@over_groups
@many_seeds
@few
def test_distance_is_the_norm_of_the_logarithm(group, seed):
    x = algebra_vector(group, seed)
    (a,) = elements(group, seed, 1)
    assert_near(group.distance(a, group.compose(a, group.exp(x))), x.norm(), group.coordinates)


@over_groups
def test_random_repeats_with_its_generator_and_keeps_dtype(group):
    first, second = group.random(0.5, source(3)), group.random(0.5, source(3))
    assert torch.equal(first, second)
    single = group.random(0.5, source(3), torch.float32)
    group.check(single)
    for element in (single, group.identity(torch.float32)):
        assert element.dtype == (torch.int64 if isinstance(group, Permutations) else torch.float32)
    group.check(group.random(0.5))


@over_groups
def test_random_of_scale_zero_keeps_only_the_discrete_part(group):
    for seed in range(5):
        a = group.random(0.0, source(seed))
        # the discrete parts that are drawn are sign flips, reflections and permutations
        if isinstance(group, (PositiveScaling, GeneralLinear, ComplexScaling, Translations)):
            assert torch.equal(a, group.identity())
        elif not isinstance(group, Permutations):
            assert_same(group, group.compose(a, a), group.identity())


# The action


@over_groups
@pytest.mark.parametrize("axis", [0, 1, -1])
@many_seeds
@few
def test_action_is_a_homomorphism(group, axis, seed):
    a, b = elements(group, seed, 2)
    tensor = legs(group, seed, (2, 3))[0].movedim(-1, axis)
    for power in POWERS:
        composed = group.act(group.compose(a, b), tensor, axis, power)
        assert_near(composed, group.act(a, group.act(b, tensor, axis, power), axis, power), group.coordinates)
        assert_near(group.act(group.identity(), tensor, axis, power), tensor, group.coordinates)


@over_groups
@many_seeds
@few
def test_action_on_a_vector_and_a_covector_leaves_the_observable(group, seed):
    (a,) = elements(group, seed, 1)
    vector, covector = legs(group, seed, (4, 3), (4, 3))
    before = observable(group, vector, covector)
    moved = group.act(a, vector.movedim(-1, 0), 0, 1).movedim(0, -1)
    after = observable(group, moved, group.act(a, covector, 2, -1))
    assert_near(after, before, 10 * group.coordinates)


@over_groups
@many_seeds
@few
def test_action_moves_something_unless_the_element_is_the_identity(group, seed):
    (a,) = elements(group, seed, 1)
    (tensor,) = legs(group, seed, (3,))
    assert torch.equal(group.act(a, tensor, 1), tensor) == torch.equal(a, group.identity())


@pytest.mark.parametrize("group", [g for g in GROUPS if isinstance(g.values[0], DiagonalGroup)])
@pytest.mark.parametrize("power", [-2, -1, 0, 1, 2, 3])
def test_diagonal_powers_are_powers_of_the_factor(group, power):
    (a,) = elements(group, 5, 1)
    (tensor,) = legs(group, 5, (3,))
    assert_near(group.act(a, tensor, 1, power), tensor * a**power, 1)
    assert_near(group.factor(a, power), a**power, 1)


@pytest.mark.parametrize("group", [g for g in GROUPS if isinstance(g.values[0], (MatrixGroup, Translations))])
@pytest.mark.parametrize("power", [-2, 0, 2])
def test_other_groups_refuse_other_powers(group, power):
    with pytest.raises(GroupError, match=f"got {power}") as error:
        group.act(group.identity(), torch.ones(group.coordinates), 0, power)
    assert group.symbol in str(error.value)


@over_groups
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("power", POWERS)
def test_action_keeps_dtype_and_rounds_once_or_twice(group, dtype, power):
    (a,) = elements(group, 7, 1)
    exact = legs(group, 7, (3,))[0].to(dtype).double()
    tensor = exact.to(dtype)
    moved = group.act(a, tensor, 1, power)
    assert moved.dtype == dtype
    assert moved.is_contiguous()
    assert torch.equal(tensor.double(), exact)
    expected = group.act(a, exact, 1, power)
    # in float64 the work itself rounds, else only the factor and the result
    eps = torch.finfo(dtype).eps * (group.coordinates if dtype == torch.float64 else 1.5)
    torch.testing.assert_close(moved.double(), expected, rtol=eps, atol=eps if dtype != torch.float16 else 1e-6)


@over_groups
def test_action_is_differentiable(group):
    (a,) = elements(group, 2, 1)
    (tensor,) = legs(group, 2, (2,))
    assert torch.autograd.gradcheck(lambda t: group.act(a, t, -1, -1), tensor.requires_grad_())


@over_groups
@pytest.mark.parametrize("axis", [0, 1, -1, 2, -3])
def test_wrong_axes_are_refused(group, axis):
    tensor = torch.ones(group.coordinates + 1, group.coordinates + 2)
    with pytest.raises(GroupError, match=f"axis {axis} of size {group.coordinates}") as error:
        group.act(group.identity(), tensor, axis)
    assert group.symbol in str(error.value)


@over_groups
def test_elements_of_the_wrong_shape_are_refused(group):
    wrong = torch.cat([group.identity()] * 2)
    for use in (group.check, lambda a: group.act(a, torch.ones(group.coordinates), 0)):
        with pytest.raises(GroupError, match="of shape") as error:
            use(wrong)
        assert group.symbol in str(error.value)


@pytest.mark.parametrize(("group", "element"), NON_ELEMENTS)
def test_non_elements_are_refused(group, element):
    with pytest.raises(GroupError, match="Expected") as error:
        group.check(element)
    assert group.symbol in str(error.value)


def test_every_group_has_a_non_element():
    assert {type(group) for group, _ in NON_ELEMENTS} == concrete_groups()


# The charge


@over_groups
@many_seeds
@settings(max_examples=4)
def test_charge_is_the_moment_map_of_half_the_squared_norm(group, seed):
    vectors, covectors = legs(group, seed, (4,), (2, 3)), legs(group, seed + 7, (5,), ())
    charge = group.charge(vectors, covectors)
    assert charge.shape == group.log(group.identity()).shape
    for x in generators(group):
        t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        a = group.exp(t * x)
        moved = [group.act(a, p, -1, 1) for p in vectors] + [group.act(a, p, -1, -1) for p in covectors]
        (rate,) = torch.autograd.grad(sum(p.square().sum() / 2 for p in moved), t)
        assert_near((charge * x).sum(), rate, 10 * group.coordinates)


@over_groups
@many_seeds
@few
def test_charge_is_conserved_by_gradient_flow(group, seed):
    vector, covector = (p.requires_grad_() for p in legs(group, seed, (4, 3), (4, 3)))
    loss = observable(group, vector, covector).sin().exp().sum()
    flow = torch.autograd.grad(loss, (vector, covector))
    # the charge is quadratic at most, so that a central difference is exact
    ahead, behind = (group.charge([vector + s * flow[0]], [covector + s * flow[1]]) for s in (1, -1))
    assert_near((ahead - behind) / 2, torch.zeros_like(ahead), 100 * group.coordinates)


@over_groups
@many_seeds
@few
def test_charge_is_odd_under_exchange_and_adds_up(group, seed):
    p, q, r = legs(group, seed, (4,), (2, 3), ())
    assert_near(group.charge([p], [q, r]), -group.charge([q, r], [p]), group.coordinates)
    assert_near(group.charge([p, q], []), group.charge([p], []) + group.charge([q], []), group.coordinates)
    assert_near(group.charge([p, q], [q, p]), 0 * group.charge([], []), group.coordinates)


@over_groups
def test_charge_vanishes_without_a_noncompact_generator(group):
    charge = group.charge(legs(group, 1, (9,)), [])
    if isinstance(group, (Signs, Permutations)):
        assert charge.shape == (0,)
    elif isinstance(group, Orthogonal):
        assert torch.equal(charge, torch.zeros(group.shape, dtype=torch.float64))
    elif isinstance(group, ComplexScaling):
        assert charge.diagonal(dim1=-2, dim2=-1).min() > 0
        assert torch.equal(charge[:, 0, 1], torch.zeros(group.batch, dtype=torch.float64))
    else:
        assert charge.abs().min() > 0


@over_groups
def test_charge_is_summed_in_float64_on_the_device_of_the_tensors(group):
    (p,) = legs(group, 1, (9,))
    for dtype in (torch.bfloat16, torch.float32):
        low = p.to(dtype)
        assert_near(group.charge([low], []), group.charge([low.double()], []), 1)
        assert group.charge([low], []).dtype == torch.float64
    assert group.charge([p.to("meta")], [p.to("meta")]).device.type == "meta"
    assert group.charge([], [p.to("meta")]).device.type == "meta"
    assert group.identity(device="meta").device.type == "meta"


@over_groups
def test_charge_refuses_a_last_axis_that_is_not_the_groups(group):
    with pytest.raises(GroupError, match="axis -1") as error:
        group.charge([torch.ones(group.coordinates, 2 * group.coordinates)], [])
    assert group.symbol in str(error.value)
