"""Every configuration of the recipe and every architecture runs, and writes what it promises."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from gaugefix.demo.language_model import LanguageModel
from recipes.transformer import main
from tests.recipes.runs import ROOT, assert_explained, configs_of, names_in, read

CONFIGS = configs_of("transformer")
TINY = ["--model.width=8", "--model.layers=1", "--model.heads=2", "--model.kv_heads=1", "--data.context=8"]
SHORT = [
    "--trainer.max_steps=12",
    "--trainer.val_check_interval=6",
    "--trainer.limit_val_batches=2",
    "--trainer.enable_progress_bar=false",
    "--sample=5",
    "--picture=false",
]


def fit(config: Path, out: Path, *more: str) -> Path:
    return main(["fit", "--config", str(config), "--out", str(out), *TINY, *SHORT, *more]).directory


def config_named(name: str) -> Path:
    return ROOT / "configs" / "transformer" / f"{name}.yaml"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_short_run_of_every_configuration(config, tmp_path, capsys):
    directory = fit(config, tmp_path)
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == str(directory)
    assert printed.count("\nThe ") == 1  # the prompt of the sample
    assert re.fullmatch(rf"\d{{8}}-\d{{6}}-{config.stem}-s0", directory.name)
    assert directory.parent == tmp_path / "transformer"
    assert names_in(directory) == ["checkpoints", "config.yaml", "metrics.jsonl", "summary.json"]
    assert names_in(directory / "checkpoints") == ["best.ckpt", "last.ckpt"]

    summary, rows = read(directory)
    assert (summary["recipe"], summary["method"], summary["seed"]) == ("transformer", config.stem, 0)
    assert summary["steps"] == 12
    assert 0 < summary["val_loss_best"] <= summary["val_loss_final"] < 6
    assert re.fullmatch("[0-9a-f]{64}", summary["corpus_sha256"])
    assert (summary["slice"] is None) == (summary["invariance_error_max"] is None)
    if summary["slice"]:
        assert summary["invariance_error_max"] <= 24 * torch.finfo(torch.float32).eps
        assert summary["projections"] == 1  # at the start
        assert [row["step"] for row in rows if "gauge/drift_after" in row] == [0]
    assert [row["step"] for row in rows if "val/loss" in row] == [5, 11]

    saved = yaml.safe_load((directory / "config.yaml").read_text())
    assert saved["model"]["init_args"]["lr"] == summary["lr"]
    again = main(["fit", "--config", str(directory / "config.yaml")]).directory
    assert read(again)[0]["train_loss_final"] == summary["train_loss_final"]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_configuration_has_its_launch_line_on_top_and_a_comment_on_every_key(config):
    assert_explained(config, "val_loss_best")


@pytest.mark.parametrize("architecture", ["layernorm", "hf-llama", "hf-gpt2"])
def test_other_architectures_are_projected_too(architecture, tmp_path):
    if architecture.startswith("hf-"):
        pytest.importorskip("transformers")
    more = ["--model.architecture", architecture, "--model.kv_heads=null", "--data.context=4"]
    directory = fit(config_named("minimal_norm"), tmp_path, *more)
    summary, rows = read(directory)
    assert summary["method"] == f"{architecture}_minimal_norm"
    assert summary["invariance_error_max"] <= 24 * torch.finfo(torch.float32).eps
    (row,) = [row for row in rows if "gauge/drift_before" in row]
    assert row["gauge/drift_after"] < 1e-3 * row["gauge/drift_before"]


def test_parameters_in_bfloat16(tmp_path):
    directory = fit(config_named("minimal_norm"), tmp_path, "--trainer.precision=bf16-true")
    checkpoint = torch.load(directory / "checkpoints" / "last.ckpt", weights_only=True)
    assert {t.dtype for t in checkpoint["state_dict"].values()} == {torch.bfloat16}
    summary, rows = read(directory)
    assert summary["precision"] == "bf16-true"
    assert 0 < summary["invariance_error_max"] <= 24 * torch.finfo(torch.bfloat16).eps
    (row,) = [row for row in rows if "gauge/drift_before" in row]
    assert row["gauge/drift_after"] < 0.1 * row["gauge/drift_before"]


def test_picture_is_drawn(tmp_path, capsys):
    directory = fit(config_named("minimal_norm"), tmp_path, "--picture=true")
    assert (directory / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert f"Picture: {directory / 'picture.png'}" in capsys.readouterr().out.splitlines()


def test_checkpoint_loads_into_the_model(tmp_path):
    directory = fit(config_named("baseline"), tmp_path, "--sample=0")
    model = LanguageModel.load_from_checkpoint(directory / "checkpoints" / "last.ckpt", weights_only=True)
    assert (model.context, model.hparams["width"]) == (8, 8)
    assert torch.isfinite(model(model.example_input_array)).all()
