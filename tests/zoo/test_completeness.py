"""Found = nullity on two-layer `transformers` models: every redundant dimension has a name."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gaugefix
from gaugefix.groups import SignedScaling
from gaugefix.symmetry import Element, GaugeGroup, Leg, LinearSymmetry
from gaugefix.testing import redundancy
from gaugefix.testing.trial import Trial
from gaugefix.verification import Verification, _draw
from tests.zoo.tangents import flat, moved, tangents
from tests.zoo.toys import TOYS


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


# OPT skips the first two rows of its position table, which no input reads: 16 numbers, of which 2 directions are found
# all the same, as writer kernels (both rows along ones).
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
    "Falcon with ALiBi, eager": Count(366),
    "GPT-BigCode, eager": Count(309),
    "Persimmon, eager": Count(
        390,
        missing=56,
        why="queries and keys of each head go through a layer norm of their own: the rows of a head in the fused "
        "projection move along ones together, in 7 directions a head beside the constants that are found; 2 layers, "
        "2 heads, queries and keys",
    ),
    "Cohere": Count(243),
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

UNREAD = "model.model.decoder.embed_positions.weight"

FEW = ("BERT, tied", "encoder, pre-norm", "LoRA on a frozen Llama")
"""Those whose Jacobian takes seconds; the others need ``-m zoo``."""
MOST = [pytest.param(name, marks=[] if name in FEW else pytest.mark.zoo) for name in TOYS]

SAMPLES, GAP = 120, 1e7
SEED = 20  # a draw in which no unit of the ReLU networks is dead


def test_every_toy_has_its_count():
    assert COUNTS.keys() == TOYS.keys()
    assert all(bool(count.why) == bool(count.missing) for count in COUNTS.values())


@pytest.mark.parametrize("name", TOYS)
def test_small_enough(name):
    model, _ = TOYS[name]()
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) <= 1500


@pytest.mark.parametrize("name", MOST)
def test_found_equals_nullity(name):
    model, inputs = TOYS[name]()
    counted = redundancy(model, inputs, samples=SAMPLES, seed=SEED, draws=1)
    expected = COUNTS[name]
    assert counted.nullity == expected.nullity
    assert counted.gap > GAP
    gauge = gaugefix.discover(model, inputs)
    assert gauge.dimension + expected.unread + expected.missing == counted.nullity


@pytest.mark.parametrize("name", MOST)
def test_all_of_it_is_sound(name):
    """What a control does not see is in the group itself: a key bias moves by anything, a writer's bias along ones."""
    model, inputs = TOYS[name]()
    gauge = gaugefix.discover(model, inputs)
    report = gaugefix.verify(model, gauge, inputs)
    assert report.error <= 1e-12
    assert any(check.control > 1e-4 for check in report.checks)
    assert all(residual < 1e-3 for residual in unexplained(model, gauge, inputs, report).values())


@pytest.mark.zoo
def test_a_leg_on_what_nobody_reads_is_not_explained():
    """The control of this control: a scaling of OPT takes a row of its positions along that is never read."""
    model, inputs = TOYS["OPT"]()
    gauge = gaugefix.discover(model, inputs)
    scaling = next(s for s in gauge.applied if isinstance(s, LinearSymmetry) and s.group == SignedScaling(8))
    index = np.full((10, 8), -1)
    index[0] = np.arange(8)
    false = replace(scaling, legs=(*scaling.legs, Leg(UNREAD, index, axis=1)))
    gauge = replace(gauge, symmetries=tuple(false if s is scaling else s for s in gauge.symmetries))
    report = gaugefix.verify(model, gauge, inputs)
    assert unexplained(model, gauge, inputs, report)[false.name, UNREAD] > 0.1


def unexplained(
    model: nn.Module, gauge: GaugeGroup, inputs: tuple[Tensor, ...], report: Verification
) -> dict[tuple[str, str], float]:
    """(symmetry, parameter) → the share of its unseen motion in which the whole group moves nothing."""
    trial = Trial(model, inputs, {}, seed=0)
    state = {name: t for name, t in trial.state.items() if name in gauge.shapes}
    steps = dict(_draw(trial, gauge, 0.3, seed=1).steps)
    directions = tangents(gauge, state).T
    shares = {}
    for check in report.checks:
        for parameter in check.unseen:
            alone = moved(gauge, state, Element(((check.symmetry, steps[check.symmetry]),)))
            motion = flat(state, {parameter: alone[parameter]})[:, None]
            rest = motion - directions @ torch.linalg.lstsq(directions, motion, driver="gelsd").solution
            shares[check.symmetry, parameter] = float(rest.norm() / motion.norm())
    return shares
