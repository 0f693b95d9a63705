"""What GL(1,C) has beyond the laws: complex arithmetic, the metric on the cylinder, and what it commutes with."""

import math

import pytest
import torch

from gaugefix.errors import GroupError
from gaugefix.groups import ComplexScaling, GeneralLinear


def of(*numbers):
    z = torch.tensor(numbers, dtype=torch.complex128)
    return torch.stack([torch.stack([z.real, -z.imag], -1), torch.stack([z.imag, z.real], -1)], -2)


def drawn(batch, seed, scale=1.0):
    return ComplexScaling(batch).random(scale, torch.Generator().manual_seed(seed))


def test_elements_are_complex_numbers():
    group, a, b = ComplexScaling(2), (1 + 2j, -0.5j), (3 - 1j, 2 + 0j)
    torch.testing.assert_close(group.compose(of(*a), of(*b)), of(*(x * y for x, y in zip(a, b, strict=True))))
    torch.testing.assert_close(group.inverse(of(*a)), of(*(1 / x for x in a)))
    torch.testing.assert_close(group.log(of(*a)), of(*(torch.tensor(a, dtype=torch.complex128).log().tolist())))


def test_vectors_are_multiplied_by_z_and_covectors_divided_by_its_conjugate():
    z, p = 3 - 4j, 1 + 2j
    tensor = torch.tensor([p.real, p.imag], dtype=torch.float64)
    for power, expected in ((1, z * p), (-1, p / z.conjugate())):
        moved = ComplexScaling().act(of(z), tensor, 0, power)
        torch.testing.assert_close(moved, tensor.new_tensor([expected.real, expected.imag]))


def test_it_is_a_subgroup_of_the_general_linear_group():
    small, large = ComplexScaling(3), GeneralLinear(2, 3)
    a, b = drawn(3, 0, 0.4), drawn(3, 1, 0.4)
    torch.testing.assert_close(small.inverse(a), large.inverse(a))
    torch.testing.assert_close(small.matrix(a, -1), large.matrix(a, -1))
    torch.testing.assert_close(small.log(a), large.log(a))
    torch.testing.assert_close(small.distance(a, b), large.distance(a, b))


def test_every_element_commutes_with_every_rotation():
    turn = of(*(complex(math.cos(t), math.sin(t)) for t in (0.3, -2.0, 1.0)))
    a = drawn(3, 2)
    torch.testing.assert_close(a @ turn, turn @ a)


def test_the_distance_goes_the_short_way_round():
    group = ComplexScaling()
    near, far = (of(complex(math.cos(t), math.sin(t))) for t in (3.0, -3.0))
    torch.testing.assert_close(group.distance(near, far), torch.tensor(2**0.5 * (2 * math.pi - 6.0)).double())
    torch.testing.assert_close(group.distance(of(1), of(-1)), torch.tensor(2**0.5 * math.pi).double())


def test_a_general_matrix_is_no_algebra_vector():
    with pytest.raises(GroupError, match=r"\[\[x, -y\], \[y, x\]\]"):
        ComplexScaling().exp(torch.tensor([[[1.0, 1.0], [1.0, 1.0]]]))


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_extreme_scales_neither_overflow_nor_vanish(size):
    group = ComplexScaling()
    log = group.log(of(complex(0, size)))
    torch.testing.assert_close(group.inverse(of(complex(0, size))), of(complex(0, -1 / size)), rtol=1e-12, atol=0)
    torch.testing.assert_close(log, of(complex(math.log(size), math.pi / 2)))
