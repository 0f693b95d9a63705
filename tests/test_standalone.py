"""The same without Lightning's Trainer: Fabric, and the Trainer of transformers."""

import copy

import pytest
import torch
from lightning.fabric import Fabric
from torch import nn
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import gaugefix
from gaugefix.errors import SettingError, SliceError
from gaugefix.hugging_face import GaugeTrainerCallback

CONFIG = {"n_layer": 2, "n_head": 2, "n_embd": 16, "vocab_size": 40, "n_positions": 16, "attn_pdrop": 0.0}


def test_fabric():
    fabric = Fabric(accelerator="cpu", devices=1)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    x = torch.randn(8, 4)
    gauge = gaugefix.discover(net, (x,))
    model, optimizer = fabric.setup(net, torch.optim.Adam(net.parameters(), 1e-2))
    for _ in range(3):
        optimizer.zero_grad()
        fabric.backward(model(x).square().mean())
        optimizer.step()
    plain, moment = copy.deepcopy(net), optimizer.state[net[0].weight]["exp_avg"].clone()
    element = gaugefix.project_(model, gauge, "minimal_norm", optimizers=[optimizer])
    assert gaugefix.drift(model, gauge).total < 1e-3
    torch.testing.assert_close(model(x), plain(x))
    (scale,) = (value for name, value in element.steps if name == "0:scale")
    torch.testing.assert_close(optimizer.state[net[0].weight]["exp_avg"], (moment / scale[:, None]).float())


class Words(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, k):
        ids = torch.randint(0, 40, (12,), generator=torch.Generator().manual_seed(k))
        return {"input_ids": ids, "labels": ids}


def trained(folder, *callbacks):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**CONFIG, resid_pdrop=0.0, embd_pdrop=0.0))
    arguments = TrainingArguments(
        str(folder), max_steps=8, per_device_train_batch_size=8, learning_rate=1e-2, use_cpu=True, report_to=[],
        save_strategy="no", disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=Words(), callbacks=list(callbacks)).train()
    return model


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_trainer_of_transformers(tmp_path):
    callback = GaugeTrainerCallback("minimal_norm", every_n_steps=4)
    model, plain = trained(tmp_path / "a", callback), trained(tmp_path / "b")
    assert (callback.projections, callback.rolled_back) == (3, 0)
    assert 0.0 < callback.invariance_error < 2.9e-6
    gauge = callback.analysed.gauge
    assert gauge.dimension > 200
    blocks = gauge.select(lambda s: isinstance(s.group, gaugefix.groups.GeneralLinear))
    assert gaugefix.drift(model, blocks).total < 1e-2 < gaugefix.drift(plain, blocks).total


def test_bad_settings_are_refused():
    with pytest.raises(SliceError, match="Did you mean 'minimal_norm'"):
        GaugeTrainerCallback("minimal_nrom")
    with pytest.raises(SettingError, match="every_n_steps"):
        GaugeTrainerCallback(every_n_steps=0)
