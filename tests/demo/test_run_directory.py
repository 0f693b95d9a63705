import re

import pytest

from gaugefix.demo import run_directory
from gaugefix.demo.run_directory import OutputError, new_run_directory


def test_name_holds_time_and_what_was_run(tmp_path):
    path = new_run_directory(tmp_path / "runs", "baseline-s0")
    assert path.is_dir()
    assert re.fullmatch(r"\d{8}-\d{6}-baseline-s0", path.name)


def test_two_runs_in_one_second_get_two_directories(tmp_path, monkeypatch):
    class Stopped(run_directory.datetime):
        @classmethod
        def now(cls):
            return cls(2024, 1, 2, 3, 4, 5)

    monkeypatch.setattr(run_directory, "datetime", Stopped)
    names = [new_run_directory(tmp_path, "a").name for _ in range(3)]
    assert names == ["20240102-030405-a", "20240102-030405-a-2", "20240102-030405-a-3"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"Expected a directory .*file.*Choose another with --out\.$"):
        new_run_directory(tmp_path / "file" / "runs", "a")
