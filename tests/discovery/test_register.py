"""Rules at run time: an operation of one's own, duplicates, wording."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from gaugefix import discover, verify
from gaugefix.discovery import ODD, PERMUTE, POSITIVE, Elementwise, register, rules
from gaugefix.discovery.rules import registry
from gaugefix.errors import DiscoveryError, NoEffectWarning
from tests.discovery.architectures import Net, rows


@torch.library.custom_op("gaugefix_tests::half_open", mutates_args=())
def half_open(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 0, x, 0.25 * x)


@half_open.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@pytest.fixture(autouse=True)
def _restored_table() -> Iterator[None]:
    before = dict(registry._TABLE)
    yield
    registry._TABLE.clear()
    registry._TABLE.update(before)


def network() -> nn.Module:
    return Net(lambda s, x: s.o(half_open(s.a(x))), a=nn.Linear(4, 5), o=nn.Linear(5, 3))


def test_unknown_custom_operation_is_named():
    with pytest.warns(NoEffectWarning):
        gauge = discover(network(), rows(4))
    assert gauge.unknown_ops == ("gaugefix_tests.half_open",)
    assert "operations without a rule (what reaches them is frozen): gaugefix_tests.half_open" in str(gauge)


@pytest.mark.parametrize(("actions", "symbols"), [(POSITIVE, ["R+^5", "S_5"]), (PERMUTE, ["S_5"])])
def test_registered_operation_has_its_symmetries(actions, symbols):
    register("gaugefix_tests.half_open", Elementwise(actions), "leaky ReLU: f(λx) = λ f(x) for λ > 0")
    model = network()
    gauge = discover(model, rows(4))
    assert gauge.unknown_ops == ()
    assert [s.group.symbol for s in gauge.symmetries] == symbols
    verify(model, gauge, rows(4))


def test_a_wrong_rule_is_caught_by_verify():
    register("gaugefix_tests.half_open", Elementwise(ODD), "wrong on purpose")
    model = network()
    with pytest.raises(AssertionError, match="Expected unchanged outputs for symmetry 'a:sign'"):
        verify(model, discover(model, rows(4)), rows(4))


def test_duplicate_is_rejected_with_the_reason_of_the_first():
    with pytest.raises(DiscoveryError) as error:
        register("aten.relu", Elementwise(PERMUTE), "again")
    assert str(error.value) == (
        "Expected an operation without a rule, got 'aten.relu', which has one (f(λx) = λ f(x) for λ > 0). "
        "Pass replace=True to replace it."
    )


def test_replacing_a_rule_on_purpose():
    register("aten.relu", Elementwise(PERMUTE), "for a test", replace=True)
    gauge = discover(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)), rows(4))
    assert [s.group.symbol for s in gauge.symmetries] == ["S_5"]


def test_several_operations_at_once():
    register(["gaugefix_tests.one", "gaugefix_tests.two"], Elementwise(PERMUTE), "a test")
    register("gaugefix_tests.three gaugefix_tests.four", Elementwise(PERMUTE), "a test")
    names = {row.operation for row in rules()}
    assert {f"gaugefix_tests.{n}" for n in ("one", "two", "three", "four")} <= names


def test_every_row_has_a_reason():
    assert all(row.reason and callable(row.rule) for row in rules())
    assert len(rules()) > 150


def test_every_aten_row_names_an_operation_of_torch():
    """Anything else is a misprint, and would never be found."""
    absent = {
        row.operation
        for row in rules()
        if row.operation.startswith("aten.") and not hasattr(torch.ops.aten, row.operation.removeprefix("aten."))
    }
    assert not absent
