import pytest
import torch

from gaugefix.errors import DiffeomorphismError
from gaugefix.ode import Composition, Ripple, check_ends
from tests.ode.fields import affine, inputs


def test_those_that_fix_the_ends_are_closed_under_it():
    check_ends(Composition(Ripple.random(2, seed=0), affine(2), Ripple.random(2, seed=1)), inputs())


def test_its_inverse_is_known_where_all_are():
    a, b = affine(2, seed=1), affine(2, seed=2)
    both, x, t = Composition(a, b), inputs()[0], torch.tensor(0.4).double()
    assert float((both.inverse(*both(t, x))[1] - x).abs().max()) < 1e-14
    assert float((both.inverse(*Composition(b, a)(t, x))[1] - x).abs().max()) > 1e-3  # the order matters
    assert Composition(a, Ripple.random(2, seed=0)).inverse is None


def test_modules_are_its_children():
    assert len(list(Composition(Ripple.random(2, seed=0), Ripple.random(2, seed=1)).buffers())) == 6


def test_nothing_is_no_composition():
    with pytest.raises(DiffeomorphismError, match="Expected at least one diffeomorphism"):
        Composition()
