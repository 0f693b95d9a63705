"""Discovery is sound on every model of the zoo."""

from __future__ import annotations

import pytest

from tests.zoo.models import ZOO
from tests.zoo.survey import CASES, survey

pytestmark = pytest.mark.zoo


def test_the_zoo_is_large():
    assert len({entry.config for entry in ZOO.values()}) >= 50


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_sound_and_not_empty(name, attention):
    row, gauge = survey(name, attention)
    assert row.error <= 1e-12
    assert row.found > 0
    moved = {parameter for symmetry in gauge.applied for parameter in symmetry.parameters}
    named = {frozen.parameter for frozen in gauge.frozen}
    model, _ = ZOO[name].build(attention)
    missing = {parameter for parameter, _ in model.named_parameters()} - moved - named
    assert not missing, "neither moved nor named with a reason"
