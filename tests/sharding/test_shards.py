"""Shards are read as whole tensors and written row by row; what lies otherwise is refused by name."""

from types import SimpleNamespace

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from gaugefix.errors import SettingError
from gaugefix.regularizers.gradients import gradients_of_rows
from gaugefix.sharding import (
    Place,
    Shards,
    copied,
    factor_here,
    place_of,
    rows_here,
    rows_of,
    shards,
    shards_of,
    subset,
    widened,
)


@pytest.fixture(scope="module")
def mesh():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.fixture
def tensors(mesh):
    generator = torch.Generator().manual_seed(0)
    plain = {name: torch.randn(5, 3, generator=generator) for name in "abc"}
    sharded = {name: distribute_tensor(t, mesh, [Shard(0)]) for name, t in plain.items()}
    return plain, {**sharded, "buffer": torch.arange(2.0)}


def test_a_view_of_shards_has_the_whole_values(tensors):
    plain, sharded = tensors
    view = shards_of(sharded)
    assert isinstance(view, Shards)
    assert list(view) == ["a", "b", "c", "buffer"]
    assert all(torch.equal(view[name], plain[name]) for name in plain)
    assert shards_of(plain) is plain
    assert view.get("d") is None


def test_writing_leaves_the_tensors_and_other_views_alone(tensors):
    plain, sharded = tensors
    view = shards_of(sharded)
    mine, some = copied(view), subset(view, ["b"])
    mine["a"] = 2.0 * plain["a"]
    mine["buffer"] = torch.ones(2)
    mine.scale("b", torch.full((5, 1), 3.0), offset=1.0)
    assert torch.equal(mine["a"], 2.0 * plain["a"])
    assert torch.allclose(mine["b"], (plain["b"] + 1.0) * 3.0 - 1.0)
    assert torch.equal(view["a"], plain["a"])
    assert torch.equal(some["b"], plain["b"])
    assert torch.equal(sharded["b"].full_tensor(), plain["b"])
    assert widened(view, ["c"])["c"].dtype == torch.float64


def test_values_that_have_changed_are_read_anew(tensors):
    plain, sharded = tensors
    view = Shards(sharded)
    assert torch.equal(view["a"], plain["a"])
    rows_here(sharded["a"]).mul_(2.0)
    assert torch.equal(view["a"], plain["a"])  # what was gathered is kept
    assert torch.equal(view.renewed(sharded)["a"], 2.0 * plain["a"])


def test_totals_and_what_trains(tensors):
    plain, sharded = tensors
    tied = {name: t.requires_grad_(name in "ab") for name, t in sharded.items()}
    view = Shards({**tied, "a again": tied["a"]})
    assert view.trained == ("a", "b")
    found = view.total({name: rows_of(view)[name].double().sum() for name in ("a", "buffer")})
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, plain["a"].double().sum() + 1.0)
    assert rows_of(plain) is plain


def test_gradients_are_those_of_the_rows(mesh):
    weight = torch.nn.Parameter(distribute_tensor(torch.ones(4, 4), mesh, [Shard(0)]))
    assert gradients_of_rows({"weight": weight}) == {}
    weight.grad = distribute_tensor(torch.ones(4, 4), mesh, [Shard(0)])
    gradients_of_rows({"weight": weight})["weight"].mul_(3.0)
    assert torch.equal(weight.grad.full_tensor(), torch.full((4, 4), 3.0))
    plain = torch.nn.Parameter(torch.ones(2))
    plain.grad = torch.ones(2)
    assert gradients_of_rows({"bias": plain})["bias"] is plain.grad
    weight.grad = distribute_tensor(torch.ones(4, 4), mesh, [Replicate()])
    with pytest.raises(SettingError, match=r"gradient of 'weight' with the placements \(Shard\(dim=0\),\) of the par"):
        gradients_of_rows({"weight": weight})


def test_few_gathered_tensors_are_kept(tensors, monkeypatch):
    monkeypatch.setattr(shards, "_FLOOR", 0)
    view = Shards(tensors[1])
    gathered = []
    monkeypatch.setattr(Place, "gather", lambda place, rows: gathered.append(1) or rows.clone())
    view["a"], view["a"]
    assert len(gathered) == 1
    view["b"], view["a"]  # a fourth of four tensors is less than two
    assert len(gathered) == 3
    assert view._recent._size == 5 * 3 * 4


def test_rows_of_uneven_shards():
    whole = torch.arange(14.0).reshape(7, 2)
    mesh = SimpleNamespace(size=lambda: 2)
    first, second, none = Place(mesh, (7, 2), 0, 4), Place(mesh, (7, 2), 4, 3), Place(mesh, (7, 2), 7, 0)
    assert torch.equal(torch.cat([place.cut(whole) for place in (first, second, none)]), whole)
    assert second.cut(torch.ones(1, 2)).shape == (1, 2)  # a factor that is the same for all rows
    assert Place(mesh, (1, 2), 1, 0).cut(torch.ones(1, 2)).shape == (0, 2)


def test_rows_and_factors_of_a_sharded_tensor(tensors):
    plain, sharded = tensors
    rows_here(sharded["a"]).mul_(2.0)
    assert torch.equal(sharded["a"].full_tensor(), 2.0 * plain["a"])
    assert torch.equal(factor_here(sharded["a"], torch.arange(5.0)[:, None]), torch.arange(5.0)[:, None])
    assert rows_here(plain["a"]) is plain["a"]


def test_other_placements_are_refused_by_name(mesh):
    whole = torch.ones(4, 4)
    plane = init_device_mesh("cpu", (1, 1))
    for given, placements in ((mesh, [Shard(1)]), (plane, [Replicate(), Shard(0)]), (plane, [Shard(0), Shard(1)])):
        with pytest.raises(SettingError, match=r"Shard\(0\), for 'net.weight', got .*tensor_parallel_size=1"):
            place_of("net.weight", distribute_tensor(whole, given, placements))
    assert place_of("net.weight", distribute_tensor(whole, mesh, [Replicate()])) is None
    assert place_of("net.weight", whole) is None
