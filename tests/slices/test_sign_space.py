"""Products of signs over Z2: what is fixed stays fixed, and what is open can be set."""

from itertools import chain, combinations

from hypothesis import given
from hypothesis import strategies as st

from gaugefix.slices.sign_space import SignSpace

products = st.lists(st.integers(0, 6), min_size=1, max_size=4)


def value(product, signs):
    out = 1
    for k in product:
        out *= signs[k]
    return out


@given(wanted=st.lists(st.tuples(products, st.sampled_from([1, -1])), max_size=12))
def test_every_product_takes_the_wanted_sign_unless_earlier_ones_decide_it(wanted):
    space, signs = SignSpace(), [1] * 7
    fixed = []
    for product, sign in wanted:
        rest = space.reduce(product)
        decided = any(_xor([p for p, _ in subset]) == _odd(product) for subset in _subsets(fixed))
        assert (not rest) == decided
        if rest:
            together = space.fix(rest)
            if value(product, signs) != sign:
                for k in together:
                    signs[k] *= -1
            fixed.append((product, sign))
        for known, expected in fixed:
            assert value(known, signs) == expected
            assert not space.reduce(known)


def test_a_sign_that_occurs_twice_cancels():
    assert SignSpace().reduce([3, 3]) == frozenset()
    assert SignSpace().reduce([3, 1, 3]) == frozenset([1])


def _odd(product):
    return frozenset(k for k in product if product.count(k) % 2)


def _xor(sets):
    out = frozenset()
    for product in sets:
        out ^= _odd(product)
    return out


def _subsets(items):
    return chain.from_iterable(combinations(items, k) for k in range(len(items) + 1))
