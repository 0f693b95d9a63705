import sys

import pytest
import torch

from gaugefix.demo.digits import DigitsData
from gaugefix.demo.extras import MissingExtraError


def ready(**settings) -> DigitsData:
    data = DigitsData(**settings)
    data.setup("fit")
    return data


def order_of(data: DigitsData) -> torch.Tensor:
    return torch.cat([x for x, _ in data.train_dataloader()])


def test_every_digit_is_in_one_part():
    data = ready()
    train, val = data.train_data.tensors[0], data.val_data.tensors[0]
    assert (len(train), len(val)) == (1438, 359)
    whole = torch.cat([train, val])
    assert len(whole.unique(dim=0)) == len(ready(split_seed=1).train_data.tensors[0].unique(dim=0)) + 359


def test_training_part_is_standardised():
    x = ready().train_data.tensors[0]
    assert float(x.mean()) == pytest.approx(0, abs=1e-5)
    assert float(x.std()) == pytest.approx(1, abs=1e-5)


def test_split_depends_on_its_own_seed_only():
    torch.manual_seed(3)
    first = ready().val_data.tensors[0]
    torch.manual_seed(4)
    assert torch.equal(first, ready().val_data.tensors[0])
    assert not torch.equal(first, ready(split_seed=1).val_data.tensors[0])


def test_order_depends_on_the_seed_of_the_run_and_not_on_other_draws():
    torch.manual_seed(3)
    first = order_of(ready())
    torch.manual_seed(3)
    data = ready()
    torch.rand(5)  # what a callback may do
    assert torch.equal(first, order_of(data))
    torch.manual_seed(4)
    assert not torch.equal(first, order_of(ready()))


def test_epochs_differ():
    loader = ready().train_dataloader()
    first, second = (torch.cat([y for _, y in loader]) for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("image", "shape"), [(False, (32, 64)), (True, (32, 1, 8, 8))])
def test_batches_have_the_shape_asked_for(image, shape):
    data = ready(batch_size=32, image=image)
    batches = [x for x, _ in data.train_dataloader()]
    assert {tuple(x.shape) for x in batches} == {shape}
    assert len(batches) == len(data.train_dataloader()) == 1438 // 32
    (validation,) = data.val_dataloader()
    assert len(validation[0]) == 359


@pytest.mark.parametrize(("settings", "message"), [({"batch_size": 0}, "batch_size"), ({"val_fraction": 1.0}, "val_f")])
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=f"^Expected .* for {message}"):
        DigitsData(**settings)


def test_without_scikit_learn_the_error_has_the_pip_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=r'the digits data.*pip install "scikit-learn>=1\.4"$'):
        ready()
