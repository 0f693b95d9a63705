"""Between two actions the callbacks never wait for an accelerator: no hook reads a number out of a tensor."""

import warnings
from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch
from torch import nn

from gaugefix import GaugeProjection, GaugeRegularizer, OrbitDrift
from gaugefix.callbacks import NoetherCharges, VerticalFraction
from gaugefix.regularizers import term_names
from tests.callbacks.host_syncs import Methods, Reads, Recorded, Watch
from tests.callbacks.small_fits import CLASSES, INPUTS, Announced, data, trainer
from tests.discovery.transformers_small import Block

STEPS, EVERY = 12, 5
FIRST, DUE = 1, {5, 10}
SOLVES = "solves for a slice at every step, and a solver must know when it is done"
LOOKS = "looks at whether the gradients that it observes are finite"


class Attention(nn.Module):
    """Heads, layer norms and shifts: scalings, matrices and affine symmetries."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.widen, self.block, self.last = nn.Linear(1, 8), Block(8, 2, 16), nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.last(self.block(self.widen(x[..., None])).mean(1))


def layers() -> nn.Sequential:
    """Layers of equal width, which only scale."""
    torch.manual_seed(0)
    widths = (INPUTS, 8, 8, 8)
    return nn.Sequential(
        *[nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(widths)], nn.Linear(8, CLASSES)
    )


CALLBACKS = {
    "GaugeProjection": lambda: GaugeProjection(every_n_steps=EVERY),
    "GaugeProjection, flat": lambda: GaugeProjection("flat", every_n_steps=EVERY),
    "OrbitDrift": lambda: OrbitDrift(every_n_steps=EVERY),
    "VerticalFraction": lambda: VerticalFraction(every_n_steps=EVERY),
    "NoetherCharges": lambda: NoetherCharges(every_n_steps=EVERY),
    **{f"term {name}": (lambda name=name: GaugeRegularizer(name, strength=1e-4)) for name in term_names()},
}
WAIT = {"GaugeProjection, flat": LOOKS, "term nuclear_norm": SOLVES, "term product_of_norms": SOLVES}
LAYERS = {
    "OrbitDrift",
    "VerticalFraction",
    "NoetherCharges",
    "term path_norm",
    "term depth_smoothness",
}  # others: heads
EVERYTHING = [
    pytest.param(name, marks=[pytest.mark.xfail(reason=WAIT[name])] if name in WAIT else []) for name in CALLBACKS
]


@pytest.fixture(autouse=True)
def one_thread():
    """A watch sees the thread that it was started in; batches of matrices are shared out over others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def watched_fit(name: str, context, **settings) -> Watch:
    """Train for some steps, with Lightning's logging as seldom as the action; hooks run within the context."""
    callback = CALLBACKS[name]()
    net = layers() if name in LAYERS else Attention()
    watch = Watch([callback], context)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="GPU available")
        fit = trainer(watch, callback, max_steps=STEPS, log_every_n_steps=EVERY, **settings)
        fit.fit(Announced(net, "SGD", lr=1e-3), data(batches=STEPS))
    assert watch.calls, "no hook of the callback was seen"
    return watch


@pytest.mark.parametrize("read", ["item", "float", "bool", "tolist", "int", "cpu", "numpy", "nonzero", "mask", "where"])
def test_the_watch_sees_a_read(read: str) -> None:
    reads = {
        "item": lambda t: t.sum().item(),
        "float": lambda t: float(t.sum()),
        "bool": lambda t: bool(t.sum() > 0),
        "int": lambda t: int(t.sum()),
        "tolist": lambda t: t.tolist(),
        "cpu": lambda t: t.cpu(),
        "numpy": lambda t: t.numpy(),
        "nonzero": lambda t: t.nonzero(),
        "mask": lambda t: t[t > 0],
        "where": lambda t: torch.where(t > 0),
    }
    found: list[str] = []
    with Reads(found), Methods(found):
        reads[read](torch.ones(3))
    assert found


def test_the_watch_sees_nothing_in_what_need_not_wait() -> None:
    found: list[str] = []
    with Reads(found), Methods(found):
        t = torch.ones(3, 3)
        torch._foreach_mul_([t], torch.tensor(2.0))
        torch.where(t > 1, t, 0.0).sum().square().add_(1)
        assert t.shape[0] == 3
    assert not found


@pytest.mark.parametrize("name", EVERYTHING)
def test_nothing_is_read_between_actions(name: str) -> None:
    seen = Recorded()
    watched_fit(name, seen)
    between = {step: what for step, what in seen.by_step.items() if step not in {FIRST, *DUE}}
    assert not between


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator that reports synchronisation")
@pytest.mark.parametrize("name", EVERYTHING)
def test_nothing_waits_between_actions_on_an_accelerator(name: str) -> None:
    @contextmanager
    def strict(step: int, label: str):
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default" if step in {FIRST, *DUE} else "error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)

    watched_fit(name, strict, accelerator="cuda")
