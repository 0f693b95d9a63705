"""The time that a grid still takes."""

import json

import pytest

from gaugefix.compare import meter
from gaugefix.compare.meter import Meter


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(meter.time, "monotonic", lambda: now[0])
    return now


def ended(tmp_path, name: str, **summary) -> dict:
    (tmp_path / name).mkdir()
    (tmp_path / name / "summary.json").write_text(json.dumps(summary))
    return {"directory": str(tmp_path / name)}


def test_what_is_left_is_the_mean_of_what_has_ended(tmp_path, clock, capsys):
    with Meter(total=5, jobs=2) as shown:
        assert shown.left() == "starting"
        clock[0] += 60  # torch is imported
        shown.ended(
            ended(tmp_path, "a", status="success", val_loss_final=0.123456), {"status": "success", "seconds": 8.0}
        )
        assert shown.left() == "16 s left"  # four of 8 seconds, two at a time
        shown.ended(
            ended(tmp_path, "b", status="success", diverged=True, steps=7), {"status": "success", "seconds": 4.0}
        )
        assert shown.left() == "9 s left"
        clock[0] += 2
        assert shown.left() == "7 s left"
        shown.ended(ended(tmp_path, "c", status="failed"), {"status": "failed", "error": "ValueError: [blue]"})
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.strip()] == [
        "[1/5] a: val loss 0.1235; 16 s left",
        "[2/5] b: diverged at step 7; 9 s left",
        "c failed: ValueError: [blue]",
        "[3/5] c: failed; 4 s left",
    ]
