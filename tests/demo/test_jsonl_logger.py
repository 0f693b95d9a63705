import json
import math
from argparse import Namespace

import numpy as np
import pytest
import torch

from gaugefix.demo.jsonl_logger import JsonlLogger


def rows(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_a_line_per_call_in_order(tmp_path):
    logger = JsonlLogger(tmp_path / "run")
    logger.log_metrics({"train/loss": torch.tensor(0.5), "n": np.int64(3)}, step=4)
    logger.log_metrics({"val/acc": 0.25})
    logger.save()
    found = rows(tmp_path / "run")
    logger.finalize("success")
    assert found == [{"step": 4, "train/loss": 0.5, "n": 3}, {"step": None, "val/acc": 0.25}]


def test_what_json_cannot_hold_becomes_null(tmp_path):
    logger = JsonlLogger(tmp_path)
    logger.log_metrics({"a": math.nan, "b": math.inf, "c": torch.tensor(-math.inf)}, step=0)
    logger.log_summary({"nested": {"d": math.nan}, "list": (1, math.inf)})
    logger.finalize("success")
    assert rows(tmp_path) == [{"step": 0, "a": None, "b": None, "c": None}]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == {"nested": {"d": None}, "list": [1, None], "status": "success"}


def test_summary_holds_hyperparameters_and_the_latest_value(tmp_path):
    logger = JsonlLogger(tmp_path)
    logger.log_hyperparams({"lr": 0.1, "widths": (4, 4)})
    logger.log_hyperparams(Namespace(seed=3))
    logger.log_summary({"lr": 0.2})
    logger.finalize("failed")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == {"lr": 0.2, "widths": [4, 4], "seed": 3, "status": "failed"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "summary.json"]


def test_nothing_is_written_before_there_is_something_to_write(tmp_path):
    JsonlLogger(tmp_path / "run").save()
    assert not (tmp_path / "run").exists()


def test_logging_goes_on_after_finalize(tmp_path):
    logger = JsonlLogger(tmp_path)
    logger.log_metrics({"a": 1}, step=0)
    logger.finalize("success")
    logger.log_metrics({"a": 2}, step=1)
    logger.finalize("success")
    assert [row["a"] for row in rows(tmp_path)] == [1, 2]


def test_a_directory_that_holds_another_run_is_refused(tmp_path):
    first = JsonlLogger(tmp_path)
    first.log_metrics({"a": 1}, step=0)
    first.finalize("success")
    with pytest.raises(FileExistsError, match=r"^Expected a directory without metrics\.jsonl .* of its own\.$"):
        JsonlLogger(tmp_path).log_metrics({"a": 2}, step=0)
    assert [row["a"] for row in rows(tmp_path)] == [1]


def test_checkpoints_of_lightning_go_below_the_directory(tmp_path):
    logger = JsonlLogger(tmp_path)
    assert (logger.save_dir, logger.log_dir, logger.name, logger.version) == (str(tmp_path), str(tmp_path), "", "")
