import json

import pytest

from recipes.quantization import main
from recipes.transformer import main as train
from tests.recipes.runs import ROOT


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = ROOT / "configs" / "transformer" / "baseline.yaml"
    tiny = ["--model.width=8", "--model.layers=1", "--model.heads=2", "--model.kv_heads=1", "--data.context=8"]
    short = ["--trainer.max_steps=2", "--trainer.enable_progress_bar=false", "--sample=0", "--picture=false"]
    out = tmp_path_factory.mktemp("runs")
    return train(["fit", "--config", str(config), "--out", str(out), "--trainer.limit_val_batches=1", *tiny, *short])


def test_gauges_share_the_function_and_not_the_errors(run, capsys):
    assert main([str(run.directory), "--windows", "64"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(run.directory / "quantization.md")
    figures = json.loads((run.directory / "quantization.json").read_text())
    assert figures["characters"] == 64 * 8
    assert list(figures["gauges"]) == ["as trained", "random", "minimal_norm", "spectral"]
    trained, *others = figures["gauges"].values()
    for found in others:
        assert found["loss"]["float"] == pytest.approx(trained["loss"]["float"], rel=1e-5)
        assert found["roles"]["v"]["weight/tensor"] != trained["roles"]["v"]["weight/tensor"]


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "has no checkpoints/last.ckpt" in capsys.readouterr().err


def test_a_misspelt_slice_gets_the_nearest(run, capsys):
    assert main([str(run.directory), "--slices", "minimal"]) == 2
    assert "minimal_norm" in capsys.readouterr().err
