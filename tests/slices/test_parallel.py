"""Work shared out over threads."""

import pytest
import torch

from gaugefix.slices.parallel import over_batch, over_parts


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("number", [1, 2, 3, 8])
@pytest.mark.parametrize("sizes", [[1], [5, 5], [100, 1, 1, 1], [1, 1, 1, 100], [40] * 7, [16, 300, 2, 50, 50]])
def test_parts_keep_their_order_and_none_is_lost(threads, number, sizes):
    threads(number)
    items = list(range(len(sizes)))
    seen = over_parts(lambda part: (list(part), torch.get_num_threads()), items, sizes)
    assert [item for part, _ in seen for item in part] == items
    assert len(seen) <= number
    assert all(count == 1 for _, count in seen)
    assert torch.get_num_threads() == number


def test_parts_are_of_about_the_same_size(threads):
    threads(2)
    sizes = [144, 1, 1, 144, 144, 144]
    seen = over_parts(lambda part: sum(sizes[k] for k in part), range(6), sizes)
    assert len(seen) == 2
    assert max(seen) <= 290


def test_gradients_are_off_and_errors_come_through(threads):
    threads(2)
    assert over_parts(lambda _: torch.is_grad_enabled(), [0, 1], [100, 100]) == [False, False]

    def fail(part):
        raise ValueError(f"part {part}")

    with pytest.raises(ValueError, match="part"):
        over_parts(fail, [0, 1], [100, 100])
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("number", [1, 2])
def test_a_batch_is_joined_again(threads, number):
    threads(number)
    a = torch.randn(50, 4, 4).double()
    a = a @ a.mT
    values, vectors = over_batch(lambda part: tuple(torch.linalg.eigh(part)), a)
    torch.testing.assert_close((vectors * values[:, None]) @ vectors.mT, a)
