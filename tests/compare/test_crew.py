"""Worker processes: several, one that dies, and all of them stopped."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gaugefix.compare.crew import Crew
from tests.recipes.runs import ROOT

RECIPE = """
import json, os, pathlib, sys, time, warnings

def main(args):
    directory, kind = pathlib.Path(args[0]), args[1]
    print(f"{kind} says something")
    if kind == "dies":
        os.write(2, b"no memory left\\n")
        os._exit(7)
    if kind == "raises":
        raise ValueError("the loss is\\nblue")
    if kind == "refuses":
        print("usage: ...", "error: no such option", sep="\\n", file=sys.stderr)
        raise SystemExit(2)
    (directory / "began").write_text(str(os.getpid()))
    if kind == "waits":
        time.sleep(60)
    (directory / "summary.json").write_text(json.dumps({"status": "success", "pid": os.getpid()}))
"""


@pytest.fixture
def task(tmp_path):
    (tmp_path / "recipe.py").write_text(RECIPE)

    def make(kind: str, k: int = 0) -> dict:
        directory = str(tmp_path / f"{kind}{k}")
        identity = {"method": kind, "seed": k}
        script = str(tmp_path / "recipe.py")
        return {"script": script, "arguments": [directory, kind], "directory": directory, "identity": identity}

    return make


def summary(task: dict) -> dict:
    return json.loads(Path(task["directory"], "summary.json").read_text())


def carried_out(tasks: list[dict], jobs: int) -> dict[str, dict]:
    crew = Crew(tasks, jobs)
    replies = {task["directory"]: reply for task, reply in filter(None, crew.replies())}
    assert crew.under_way == []
    return {task["identity"]["method"] + str(task["identity"]["seed"]): replies[task["directory"]] for task in tasks}


def test_one_process_does_many_tasks(task):
    tasks = [task("works", k) for k in range(4)]
    assert {reply["status"] for reply in carried_out(tasks, jobs=1).values()} == {"success"}
    assert len({summary(one)["pid"] for one in tasks} - {os.getpid()}) == 1
    assert Path(tasks[0]["directory"], "output.txt").read_text() == "works says something\n"


def test_a_task_that_fails_or_kills_its_process_costs_itself_only(task):
    kinds = ["raises", "dies", "works", "refuses"]
    tasks = [task(kind) for kind in kinds]
    replies = carried_out(tasks, jobs=2)
    assert replies["works0"]["status"] == "success"
    assert replies["raises0"]["error"] == "ValueError: the loss is blue"
    assert replies["refuses0"]["error"] == "error: no such option"
    assert replies["dies0"]["error"] == "The process ended with status 7. no memory left"
    for one, kind in zip(tasks, kinds, strict=True):
        expected = {"method": kind, "seed": 0, "status": "failed", "error": replies[f"{kind}0"].get("error")}
        assert kind == "works" or summary(one) == expected


def test_stopping_ends_the_processes_at_once(task):
    crew = Crew([task("waits", 0), task("waits", 1), task("works")], jobs=2)
    begun = time.monotonic()
    for _ in crew.replies(beat=0.05):
        if all(Path(task("waits", k)["directory"], "began").exists() for k in range(2)):
            crew.stop()
            break
    assert time.monotonic() - begun < 30
    under_way = sorted((one["identity"] for one in crew.under_way), key=lambda identity: identity["seed"])
    assert under_way == [{"method": "waits", "seed": 0}, {"method": "waits", "seed": 1}]
    assert not Path(task("works")["directory"]).exists()


def test_a_process_ends_with_the_one_that_started_it(task):
    program = f"from gaugefix.compare.crew import Crew; [*Crew([{task('waits')!r}], 1).replies()]"
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    began = Path(task("waits")["directory"], "began")
    assert within(30, lambda: began.exists() and began.read_text())
    worker = int(began.read_text())
    parent.kill()
    parent.wait()
    assert within(30, lambda: not alive(worker))


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return shown.stdout.strip()[:1] not in ("", "Z")


def within(seconds: float, condition) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False
