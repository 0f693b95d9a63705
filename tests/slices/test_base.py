"""What every slice promises: names, and no action on parameters that are not finite."""

import copy

import pytest
import torch

from gaugefix import drift, project_
from gaugefix.errors import NonFiniteError, SliceError
from gaugefix.slices import MinimalNorm, Reference, Slice, UnitNorm, get_slice, register_slice, slice_names
from gaugefix.symmetry import Element
from tests.slices.small_nets import build, loss
from tests.transport.fingerprint import fingerprint

NOT_FINITE = [float("nan"), float("inf"), float("-inf")]


def test_slices_are_found_by_name():
    assert {"minimal_norm", "unit_norm"} <= set(slice_names())
    assert isinstance(get_slice("minimal_norm"), MinimalNorm)
    assert isinstance(get_slice("unit_norm"), UnitNorm)
    chosen = MinimalNorm(tolerance=1e-9)
    assert get_slice(chosen) is chosen


@pytest.mark.parametrize("action", [get_slice, lambda name: project_(*build("mlp")[:2], name)])
def test_a_misspelt_slice_is_answered_with_the_nearest_one(action):
    message = r"Expected the name of a slice, got 'minimal_nrom'\. Did you mean 'minimal_norm'\? Available: .*unit_norm"
    with pytest.raises(SliceError, match=message):
        action("minimal_nrom")


def test_a_name_like_no_slice_gets_the_list():
    with pytest.raises(SliceError, match=r"got 'zebra'\. Available: .*minimal_norm"):
        get_slice("zebra")


def test_a_slice_is_registered_once():
    class Another(Slice):
        def solve(self, gauge, tensors):
            return Element(())

        def residual(self, gauge, tensors):
            return torch.zeros(())

    with pytest.raises(SliceError, match="Expected a new name for a slice, got 'unit_norm', which exists"):
        register_slice("unit_norm")(Another)
    assert isinstance(get_slice("unit_norm"), UnitNorm)


@pytest.mark.parametrize("kind", slice_names())
@pytest.mark.parametrize("name", ["one hidden layer", "mlp", "residual", "gated", "flattened", "bottleneck", "normed"])
def test_parameters_that_are_not_finite_are_refused_and_nothing_changes(name, kind):
    net, gauge, batch = build(name, torch.float32)
    optimizer = torch.optim.Adam(net.parameters(), amsgrad=True)
    loss(net, batch).backward()
    optimizer.step()
    slice = Reference(copy.deepcopy(net)) if kind == "reference" else kind
    moved = {parameter for s in gauge.applied if s.group.dimension for parameter in s.parameters}
    for parameter, target in net.named_parameters():
        good = target.detach().clone()
        for k, value in enumerate(NOT_FINITE if parameter in moved else []):
            with torch.no_grad():
                target.view(-1)[k % target.numel()] = value
            before = fingerprint(net, optimizer)
            for action in (lambda: project_(net, gauge, slice, [optimizer]), lambda: drift(net, gauge, slice)):
                with pytest.raises(NonFiniteError, match=f"Expected finite values for '{parameter}', got 1 NaN or inf"):
                    action()
                assert fingerprint(net, optimizer) == before
            with torch.no_grad():
                target.copy_(good)
