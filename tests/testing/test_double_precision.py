"""double_precision: nothing is rounded to float32, and nothing else changes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gaugefix.testing import double_precision

X = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TABLE = torch.linspace(0.0, 1.0, 4)  # float32

ROUNDS = {
    "float": lambda x: x.float(),
    "to": lambda x: x.to(torch.float32),
    "to, by keyword": lambda x: x.to(dtype=torch.float32),
    "to, with a device": lambda x: x.to("cpu", torch.float32),
    "type": lambda x: x.type(torch.float32),
    "half": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "softmax": lambda x: F.softmax(x, -1, dtype=torch.float32),
    "softmax, as a method": lambda x: x.softmax(-1, torch.float32),
    "sum": lambda x: x.sum(-1, dtype=torch.float32),
    "zeros": lambda x: torch.zeros(4, dtype=torch.float32) + x.float(),
    "written into zeros": lambda x: torch.zeros_like(x, dtype=torch.float32).copy_(x),
    "complex": lambda x: torch.view_as_real(x.to(torch.complex64)),
    "product with a new tensor": lambda x: x.float() @ torch.ones(4, 2),
    "product with cast integers": lambda x: x.float() @ torch.arange(4)[:, None].float(),
}
"""Ways in which a model computes in float32 although its parameters are in float64."""


@pytest.mark.parametrize("name", ROUNDS)
def test_casts_keep_all_digits(name):
    rounded = ROUNDS[name](X)
    with double_precision("cpu"):
        kept = ROUNDS[name](X)
    assert rounded.dtype in (torch.float32, torch.half, torch.bfloat16)
    assert kept.dtype == torch.float64
    assert 0.0 < float((kept - rounded).abs().max()) < 0.1
    assert torch.equal(kept, exact(name))


def exact(name: str) -> torch.Tensor:
    """The same by hand, in float64."""
    if "softmax" in name:
        return X.softmax(-1)
    by_name = {
        "sum": X.sum(-1),
        "complex": torch.view_as_real(X.to(torch.complex128)),
        "product with a new tensor": X @ torch.ones(4, 2, dtype=torch.float64),
        "product with cast integers": X @ torch.arange(4.0, dtype=torch.float64)[:, None],
    }
    return by_name.get(name, X)


UNCHANGED = {
    "bits": lambda x: x.view(torch.int32).view(torch.float32),
    "whole numbers": lambda x: (x * 10).long().to(torch.int32),
    "comparison": lambda x: x > 0,
    "arange": lambda x: torch.arange(4) + x.argmax(-1, keepdim=True),
    "limit of its type": lambda x: torch.full((2,), torch.finfo(x.dtype).min, dtype=x.dtype),
    "limit of another type": lambda x: x.masked_fill(x > 0, torch.finfo(torch.float16).min),
    "parameters": lambda x: nn.functional.linear(x, torch.ones(2, 4, dtype=x.dtype)).softmax(-1),
}


@pytest.mark.parametrize("name", UNCHANGED)
def test_everything_else_is_as_before(name):
    plain = UNCHANGED[name](X)
    with double_precision("cpu"):
        inside = UNCHANGED[name](X)
    assert inside.dtype == plain.dtype
    assert torch.equal(inside, plain)


@pytest.mark.parametrize("limit", [torch.float32, torch.float64, torch.float16])
def test_masks_made_from_limits_hide_what_they_hide(limit):
    """Additive masks use the least number of a type, not always that of the scores."""

    def attend(x: torch.Tensor) -> torch.Tensor:
        mask = torch.full((4, 4), torch.finfo(limit).min, dtype=torch.float32).triu(1)
        return F.softmax(x @ x.mT + mask, -1, dtype=torch.float32)

    x = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with double_precision("cpu"):
        weights = attend(x)
    assert weights.isfinite().all()
    assert torch.equal(weights.triu(1), torch.zeros(4, 4, dtype=torch.float64))
    assert torch.equal(weights, (x @ x.mT).masked_fill(torch.ones(4, 4).triu(1) > 0, -torch.inf).softmax(-1))


@pytest.mark.parametrize("product", [F.grouped_mm, torch._grouped_mm], ids=["function", "operator"])
def test_grouped_products_that_pytorch_has_in_float32_only(product):
    weight = torch.randn(3, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    rows = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    ends = torch.tensor([2, 2, 5], dtype=torch.int32)  # the second group is empty, the last row is in none
    with double_precision("cpu"):
        y = product(rows.float(), weight.float(), offs=ends)
    assert y.dtype == torch.float64
    assert torch.equal(y[:2], rows[:2] @ weight[0])
    assert torch.equal(y[2:5], rows[2:5] @ weight[2])
    plain = product(rows.float(), weight.float(), offs=ends)
    assert torch.allclose(y[:5].float(), plain[:5], rtol=1e-5, atol=1e-6)


def test_gradients_keep_all_digits_too():
    x = X.clone().requires_grad_()
    with double_precision("cpu"):
        (gradient,) = torch.autograd.grad((x.float() ** 3).sum(), x)
    assert torch.allclose(gradient, 3 * X**2, rtol=1e-15, atol=0.0)


def test_autocast_is_off_and_the_default_type_comes_back():
    with torch.autocast("cpu", dtype=torch.bfloat16), double_precision("cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float64
    assert torch.get_default_dtype() == torch.float32
    with pytest.raises(ZeroDivisionError), double_precision("cpu"):
        _ = 1 / 0
    assert torch.get_default_dtype() == torch.float32
    assert X.float().dtype == torch.float32
