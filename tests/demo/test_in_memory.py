"""The spiral and the EEG, and what they share."""

import sys

import matplotlib.cbook
import numpy as np
import pytest
import torch

from gaugefix.demo.eeg import EEGData, read_eeg
from gaugefix.demo.extras import MissingExtraError
from gaugefix.demo.spiral import SpiralData, spirals

BOTH = [SpiralData, EEGData]


def ready(kind, **settings):
    data = kind(**settings)
    data.setup("fit")
    return data


def order_of(data) -> torch.Tensor:
    return torch.cat([x for x, _ in data.train_dataloader()])


@pytest.mark.parametrize("kind", BOTH)
def test_order_depends_on_the_seed_of_the_run_and_not_on_other_draws(kind):
    torch.manual_seed(3)
    first = order_of(ready(kind))
    torch.manual_seed(3)
    data = ready(kind)
    torch.rand(5)  # what a callback may do
    assert torch.equal(first, order_of(data))
    torch.manual_seed(4)
    assert not torch.equal(first, order_of(ready(kind)))


@pytest.mark.parametrize("kind", BOTH)
def test_validation_is_one_batch(kind):
    data = ready(kind, batch_size=50)
    assert {len(x) for x, _ in data.train_dataloader()} == {50}
    ((x, y),) = data.val_dataloader()
    assert len(x) == len(y) == len(data.val_data)


def test_arms_are_half_a_turn_apart_and_wind_as_told():
    x, arm = spirals(2000, turns=1.5, noise=0.0, seed=0)
    radius = x.norm(dim=1)
    angle = torch.atan2(x[:, 1], x[:, 0]) - 2 * torch.pi * 1.5 * radius - torch.pi * arm
    assert torch.allclose(angle.cos(), torch.ones(2000), atol=1e-4)
    assert 0.1 <= radius.min() < radius.max() <= 1.0
    assert 0.45 < float(arm.float().mean()) < 0.55
    assert float((radius**2).mean()) == pytest.approx(0.505, abs=0.02)  # evenly filled


def test_points_depend_on_their_own_seed_only():
    torch.manual_seed(3)
    first = ready(SpiralData).val_data.tensors[0]
    torch.manual_seed(4)
    assert torch.equal(first, ready(SpiralData).val_data.tensors[0])
    assert not torch.equal(first, ready(SpiralData, data_seed=1).val_data.tensors[0])


def test_forecasts_follow_their_past_and_parts_do_not_overlap():
    data = ready(EEGData, past=5, horizon=3, val_fraction=0.25)
    series = read_eeg()
    series = (series - series[:600].mean(0)) / series[:600].std(0)
    for part, offset, length in ((data.train_data, 0, 600), (data.val_data, 600, 200)):
        past, future = part.tensors
        assert past.shape == (length - 7, 20)
        assert future.shape == (length - 7, 3, 4)
        for k in (0, 11, len(past) - 1):
            assert torch.equal(past[k].view(5, 4), series[offset + k : offset + k + 5])
            assert torch.equal(future[k], series[offset + k + 5 : offset + k + 8])


def test_series_is_what_matplotlib_has():
    with matplotlib.cbook.get_sample_data("eeg.dat") as file:
        raw = np.frombuffer(file.read()).reshape(800, 4)
    assert np.array_equal(read_eeg().numpy(), raw.astype(np.float32))
    assert ready(EEGData).facts == {"series": "eeg.dat", "samples": 800, "matplotlib": matplotlib.__version__}


def test_without_matplotlib_the_error_has_the_pip_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r'the EEG data.*pip install "matplotlib>=3\.8"$'):
        ready(EEGData)


def test_without_the_sample_data_the_error_has_the_mend(monkeypatch, tmp_path):
    monkeypatch.setattr(matplotlib.cbook, "get_sample_data", lambda name, asfileobj: str(tmp_path / name))
    with pytest.raises(FileNotFoundError, match=r"got none at '.*eeg\.dat'\. .* or choose --data="):
        ready(EEGData)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (SpiralData, {"batch_size": 0}),
        (SpiralData, {"points": 0}),
        (SpiralData, {"val_fraction": 1.0}),
        (EEGData, {"past": 0}),
        (EEGData, {"horizon": -1}),
    ],
)
def test_bad_settings_are_named(kind, settings):
    with pytest.raises(ValueError, match=f"^Expected .* for {next(iter(settings))}, got .* is usual\\.$"):
        kind(**settings)


def test_bad_spirals_and_long_windows_are_refused():
    with pytest.raises(ValueError, match=r"^Expected turns > 0 and noise >= 0, got 0 and 0\.03\."):
        SpiralData(turns=0)
    with pytest.raises(ValueError, match=r"got 204 for a part of 160 samples\. Give a smaller past"):
        ready(EEGData, past=200)


def test_dataloader_before_setup_is_refused():
    with pytest.raises(RuntimeError, match=r"Call setup\(\) first\.$"):
        SpiralData().train_dataloader()
