"""DropoutOff: whatever asks for a random mask gets none."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gaugefix.testing.dropout_off import DropoutOff

X = torch.randn(1, 2, 6, 4, generator=torch.Generator().manual_seed(0))
ATTENTION = nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True).train()

MASKED = {
    "function": lambda x, p: F.dropout(x, p),
    "module": lambda x, p: nn.Dropout(p).train()(x),
    "method of torch": lambda x, p: torch.dropout(x, p, True),
    "channels": lambda x, p: F.dropout2d(x, p),
    "attention, by keyword": lambda x, p: F.scaled_dot_product_attention(x, x, x, dropout_p=p, is_causal=True),
    "attention, by place": lambda x, p: F.scaled_dot_product_attention(x, x, x, None, p, True),
}


@pytest.mark.parametrize("name", MASKED)
def test_as_if_the_probability_were_zero(name):
    run = MASKED[name]
    with torch.random.fork_rng():
        assert not torch.equal(run(X, 0.5), run(X, 0.0))
        with DropoutOff():
            assert torch.equal(run(X, 0.5), run(X, 0.0))
    with DropoutOff():
        masked = run(X, 0.5)
    assert torch.equal(masked, run(X, 0.0))


def test_multi_head_attention():
    x = X[0]
    with torch.random.fork_rng(), torch.no_grad():
        with DropoutOff():
            quiet = ATTENTION(x, x, x)[0]
        assert not torch.equal(ATTENTION(x, x, x)[0], quiet)
        same = nn.MultiheadAttention(4, 2, dropout=0.0, batch_first=True)
        same.load_state_dict(ATTENTION.state_dict())
        assert torch.allclose(same(x, x, x)[0], quiet, rtol=1e-6, atol=1e-7)
