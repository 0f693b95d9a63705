"""Found = nullity on two-layer `transformers` models: every redundant dimension has a name."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

import gaugefix
from gaugefix.testing import redundancy
from tests.zoo.toys import TOYS

pytestmark = pytest.mark.zoo


@dataclass(frozen=True)
class Count:
    """Redundant dimensions of a toy.

    Args:
        nullity: of the Jacobian.
        unread: directions of parameters that no output of these inputs depends on.
        missing: dimensions that discovery does not find.
        why: what they are.
    """

    nullity: int
    unread: int = 0
    missing: int = 0
    why: str = ""


# OPT skips the first two rows of its position table: 16 numbers, of which 2 directions are found as writer kernels.
OFFSET = 14

COUNTS = {
    "GPT-2, untied": Count(405),
    "GPT-2, tied": Count(348),
    "GPT-J": Count(285),
    "OPT": Count(445, unread=OFFSET),
    "OPT, tied": Count(388, unread=OFFSET),
    "OPT with GELU": Count(421, unread=OFFSET),
    "Llama": Count(132),
    "Llama, tied": Count(96),
    "Qwen2": Count(132),
    "Qwen3": Count(128),
    "Falcon": Count(168),
    "Falcon, tied": Count(100),
    # The untied head has a bias of its own; the other one (13 numbers) is not used.
    "BERT": Count(410, unread=13),
    "BERT, tied": Count(
        357,
        missing=1,
        why="all rows of the tied table move along 1/γ of the last norm, the positions and the bias of the head back: "
        "a shift of the table as it is written and a reader kernel of it as it is read, at once",
    ),
    "encoder, post-norm": Count(276),
    "encoder, pre-norm": Count(299),
    "LoRA on a frozen Llama": Count(16),
}

SAMPLES, GAP = 120, 1e7
SEED = 20  # a draw in which no unit of the ReLU networks is dead


def test_every_toy_has_its_count():
    assert COUNTS.keys() == TOYS.keys()
    assert all(bool(count.why) == bool(count.missing) for count in COUNTS.values())


@pytest.mark.parametrize("name", TOYS)
def test_small_enough(name):
    model, _ = TOYS[name]()
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) <= 1500


@pytest.mark.parametrize("name", TOYS)
def test_found_equals_nullity(name):
    model, inputs = TOYS[name]()
    counted = redundancy(model, inputs, samples=SAMPLES, seed=SEED, draws=1)
    expected = COUNTS[name]
    assert counted.nullity == expected.nullity
    assert counted.gap > GAP
    gauge = gaugefix.discover(model, inputs)
    assert gauge.dimension + expected.unread + expected.missing == counted.nullity


@pytest.mark.parametrize("name", TOYS)
def test_all_of_it_is_sound(name):
    model, inputs = TOYS[name]()
    gauge = gaugefix.discover(model, inputs)
    report = gaugefix.verify(model, gauge, inputs)
    assert report.error <= 1e-12
    assert report.ineffective == ()
