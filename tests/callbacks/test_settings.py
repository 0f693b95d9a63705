"""Settings that are wrong or cannot be honoured: one error each, which names the thing and the mend."""

import pytest
import torch
from lightning.pytorch.callbacks import ModelPruning
from lightning.pytorch.strategies import SingleDeviceStrategy

from gaugefix import GaugeProjection, GaugeRegularizer, OrbitDrift
from gaugefix.callbacks import NoetherCharges, VerticalFraction
from gaugefix.callbacks.fit_checks import check_parameters, check_strategy
from gaugefix.errors import SettingError, SliceError
from tests.callbacks.small_fits import Announced, data, mlp, trainer


@pytest.mark.parametrize("kind", [GaugeProjection, OrbitDrift])
@pytest.mark.parametrize("value", [0, -5, 2.5, True])
def test_interval(kind, value):
    with pytest.raises(
        SettingError, match=f"positive number of optimizer steps for every_n_steps, got {value}. Give 1"
    ):
        kind(every_n_steps=value)


@pytest.mark.parametrize("kind", [GaugeProjection, OrbitDrift])
def test_misspelt_slice(kind):
    with pytest.raises(SliceError, match=r"got 'minimal_nrom'\. Did you mean 'minimal_norm'\?"):
        kind(slice="minimal_nrom")


def test_misspelt_policy():
    with pytest.raises(SettingError, match=r"policy for unknown_optimizer, got 'rest'\. Did you mean 'reset'\?"):
        GaugeProjection(unknown_optimizer="rest")


@pytest.mark.parametrize("settings", [{}, {"module": "net"}, {"name": "a"}])
def test_two_of_a_kind_need_names(settings):
    t = trainer(GaugeProjection(**settings), max_steps=1)
    t.callbacks.append(GaugeProjection("unit_norm", **settings))  # Trainer() itself refuses the same in its own words
    with pytest.raises(
        SettingError, match=r"name of its own for every GaugeProjection .* GaugeProjection\(name='...'\)"
    ):
        t.fit(Announced(mlp()), data())
    with pytest.raises(RuntimeError, match="more than one stateful callback of type `GaugeProjection`"):
        trainer(GaugeProjection(**settings), GaugeProjection(**settings))


@pytest.mark.parametrize("base", ["FSDPStrategy", "XLAFSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy"])
def test_sharding_strategies_are_refused(base):
    class Trainer:
        strategy = type("Mine", (type(base, (), {}),), {})()

    with pytest.raises(SettingError, match=f"strategy with whole parameters, got {base}: .* strategy='ddp'"):
        check_strategy(Trainer())


def test_the_strategy_is_checked_before_training():
    class DeepSpeedStrategy(SingleDeviceStrategy):
        pass

    model, t = Announced(mlp()), trainer(GaugeProjection(), max_steps=1, strategy=DeepSpeedStrategy("cpu"))
    with pytest.raises(SettingError, match="got DeepSpeedStrategy"):
        t.fit(model, data())
    assert t.global_step == 0


def test_pruning_in_mid_training_is_refused():
    t = trainer(ModelPruning("l1_unstructured", amount=0.3), OrbitDrift(), max_steps=1)
    with pytest.raises(SettingError, match=r"the same objects for OrbitDrift, got ModelPruning: .* a run of its own"):
        t.fit(Announced(mlp()), data())
    assert t.global_step == 0


def test_sharded_parameters_are_refused(monkeypatch):
    module = torch.nn.Linear(2, 2)
    check_parameters(module)
    monkeypatch.setattr("gaugefix.callbacks.fit_checks.is_dtensor", lambda parameter: True)
    with pytest.raises(SettingError, match=r"plain tensor for 'weight', got a DTensor .* fully_shard"):
        check_parameters(module)


def test_which_callbacks_take_shards_as_they_are_set():
    able = (GaugeProjection(), GaugeProjection("unit_norm"), OrbitDrift(), GaugeRegularizer(), NoetherCharges())
    assert all(callback.takes_shards for callback in able)
    unable = (GaugeProjection("flat"), OrbitDrift(slice="spectral"), GaugeRegularizer("path_norm"), VerticalFraction())
    assert not any(callback.takes_shards for callback in unable)


@pytest.mark.parametrize("size", [1, "auto", 2])
def test_tensor_parallel_plans_are_refused(size):
    class Trainer:
        strategy = type("ModelParallelStrategy", (), {"_tensor_parallel_size": size})()

    if size != 2:
        check_strategy(Trainer(), takes_shards=True)
        return
    with pytest.raises(SettingError, match="tensor_parallel_size=1 for ModelParallelStrategy, got 2"):
        check_strategy(Trainer(), takes_shards=True)


def test_no_attribute_has_a_name_that_lightning_overwrites():
    for callback in (GaugeProjection(), OrbitDrift()):
        assert not {"log", "log_dict"} & set(dir(callback))
