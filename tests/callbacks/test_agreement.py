"""The digest by which processes compare gauge groups: the same for the same group, another for any other."""

import dataclasses

import numpy as np
import pytest
import torch

import gaugefix
from gaugefix.callbacks.agreement import all_or_none, check_agreement, summary_of
from gaugefix.callbacks.gauge_source import Analysed
from gaugefix.errors import NonFiniteError
from gaugefix.symmetry.exactness import Exactness
from tests.callbacks.small_fits import INPUTS, mlp, trainer
from tests.slices.attention_nets import any_net


def summary(gauge, path=""):
    return summary_of(Analysed(path, torch.nn.Identity(), gauge, None))


@pytest.mark.parametrize("name", ["residual conv", "grouped queries", "post-norm encoder"])
def test_the_same_group_has_the_same_digest_wherever_it_was_found_and_used(name):
    (net, gauge, _), (_, other, _) = any_net(name, 0), any_net(name, 1)
    before = summary(gauge)
    gaugefix.project_(net, gauge, "minimal_norm")  # fills the caches of legs
    assert summary(gauge) == before == summary(other)
    assert list(before) == [s.name for s in gauge.symmetries]
    assert len(set(before.values())) == len(before)


def changed(gauge, **changes):
    first, *others = gauge.symmetries
    return dataclasses.replace(gauge, symmetries=(dataclasses.replace(first, **changes), *others))


def other_leg(gauge, **changes):
    first, *legs = gauge.symmetries[0].legs
    return changed(gauge, legs=(dataclasses.replace(first, **changes), *legs))


CHANGES = {
    "exactness": lambda g: changed(g, exactness=Exactness.DROPOUT_FREE),
    "group": lambda g: changed(g, acting=dataclasses.replace(g.symmetries[0].acting, n=9)),
    "exact part": lambda g: changed(g, exact_part=(g.symmetries[1],)),
    "power": lambda g: other_leg(g, power=2),
    "offset": lambda g: other_leg(g, offset=1.0),
    "buffer": lambda g: other_leg(g, buffer=True),
    "parameter": lambda g: other_leg(g, parameter="2.weight"),
    "index": lambda g: other_leg(g, index=np.roll(g.symmetries[0].legs[0].index, 1)),
    "shape": lambda g: dataclasses.replace(g, shapes={**g.shapes, "0.weight": (8, 7)}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_different_shows(change):
    net = torch.nn.Sequential(torch.nn.Linear(INPUTS, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8))
    gauge = gaugefix.discover(net, (torch.randn(2, INPUTS),))
    before = summary(gauge)
    after = summary(CHANGES[change](gauge))
    assert [name for name in before if after[name] != before[name]] in (["0:scale"], ["0:scale", "0:permutation"])


def test_names_are_those_within_the_lightning_module():
    gauge = gaugefix.discover(mlp(), (torch.randn(2, INPUTS),))
    assert list(summary(gauge, "net")) == [f"net.{name}" for name in summary(gauge)]
    assert list(summary(gauge, "net").values()) == list(summary(gauge).values())


def test_one_process_agrees_with_itself():
    single, failure = trainer(), ValueError("as it was")
    check_agreement(single, None, None, "GaugeProjection")
    with pytest.raises(ValueError, match="as it was"):
        check_agreement(single, None, failure, "GaugeProjection")
    with all_or_none(single):
        pass
    with pytest.raises(NonFiniteError, match="here"), all_or_none(single):
        raise NonFiniteError("here")
