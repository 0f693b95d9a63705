"""fresh_inputs and fresh_keywords: other inputs of the same kind."""

import torch

from gaugefix.testing.fresh_inputs import as_double, fresh_inputs, fresh_keywords

MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])


def test_shapes_types_and_batch():
    example = (torch.zeros(3, 2), torch.tensor([[1, 5], [2, 3]]), torch.tensor([True, False]), 7, torch.tensor(2.0))
    x, ids, mask, number, scalar = fresh_inputs(example, batch=4)
    assert (x.shape, ids.shape, mask.shape) == ((4, 2), (4, 2), (4,))
    assert (x.dtype, ids.dtype, mask.dtype) == (torch.float32, torch.int64, torch.bool)
    assert int(ids.min()) >= 1
    assert int(ids.max()) <= 5
    assert number == 7
    assert scalar is example[4]


def test_seeds():
    a, b, c = (fresh_inputs((torch.zeros(5, 4),), seed)[0] for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_masks_take_rows_of_the_example():
    """Drawn entry by entry, a row could have no position that may be attended to."""
    for seed in range(20):
        drawn = fresh_keywords({"attention_mask": MASK, "input_ids": MASK}, seed, batch=5)
        rows = {tuple(row) for row in drawn["attention_mask"].tolist()}
        assert rows <= {tuple(row) for row in MASK.tolist()}
        assert drawn["attention_mask"].shape == drawn["input_ids"].shape == (5, 4)
        flags = fresh_inputs((MASK.bool(),), seed)[0]
        assert flags.shape == MASK.shape
        assert flags[:, 0].all()


def test_other_keywords_are_drawn_like_positional_inputs():
    given = {"x": torch.zeros(2, 3), "ids": torch.tensor([[4, 9]]), "return_dict": False, "labels": None}
    drawn = fresh_keywords(given, seed=3)
    assert not torch.equal(drawn["x"], given["x"])
    assert set(drawn["ids"].reshape(-1).tolist()) <= set(range(4, 10))
    assert (drawn["return_dict"], drawn["labels"]) == (False, None)


def test_only_floating_point_tensors_become_float64():
    assert as_double(torch.ones(2)).dtype == torch.float64
    assert as_double(MASK) is MASK
    assert as_double("text") == "text"
