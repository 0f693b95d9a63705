"""Several worker processes that share a list of tasks."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from gaugefix.compare import worker
from gaugefix.compare.worker import failed

PROGRAM = "import sys; sys.path.append(sys.argv[1]); from gaugefix.compare.worker import main; main()"
ROOT = Path(worker.__file__).parents[2]
"""Where gaugefix is imported from."""


class Crew:
    """Carries out tasks in processes of its own, which a Ctrl-C in the terminal does not reach.

    Each process takes the next task when it has finished one. One that dies costs its task only.

    Args:
        tasks: for :func:`gaugefix.compare.worker.carry_out`.
        jobs: how many processes.
    """

    def __init__(self, tasks: Sequence[Mapping[str, Any]], jobs: int) -> None:
        self._tasks: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        for task in tasks:
            self._tasks.put(task)
        self._count = len(tasks)
        self._replies: queue.SimpleQueue[tuple[Mapping[str, Any], dict[str, Any]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._processes: set[subprocess.Popen[str]] = set()
        self.under_way: list[Mapping[str, Any]] = []
        """Tasks that a process is at."""
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(min(jobs, len(tasks)))]

    def replies(self, beat: float = 0.5) -> Iterator[tuple[Mapping[str, Any], dict[str, Any]] | None]:
        """Start, and yield each task with its reply as it ends, and None every ``beat`` seconds in between."""
        for thread in self._threads:
            thread.start()
        left = self._count
        while left:
            try:
                ended = self._replies.get(timeout=beat)
            except queue.Empty:
                yield None
            else:
                left -= 1
                yield ended
        for thread in self._threads:
            thread.join()

    def stop(self) -> None:
        """End all processes at once; :attr:`under_way` then holds the tasks that were not finished."""
        with self._lock:
            self._stopped.set()
            processes = list(self._processes)
        for process in processes:
            process.kill()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _serve(self) -> None:
        """The life of one process, and of those that replace it."""
        with contextlib.ExitStack() as files:
            process: subprocess.Popen[str] | None = None
            said: IO[bytes] | None = None
            while not self._stopped.is_set():
                try:
                    task = self._tasks.get_nowait()
                except queue.Empty:
                    break
                if process is None:
                    said = files.enter_context(tempfile.TemporaryFile())
                    process = self._start(said)
                    if process is None:
                        return
                with self._lock:
                    self.under_way.append(task)
                reply = ask(process, task)
                if self._stopped.is_set():
                    break
                if reply is None:
                    self._processes.discard(process)
                    retire(process)
                    status = process.returncode
                    reply = failed(task, f"The process ended with status {status}. {last_line(said)}".strip())
                    process = None
                with self._lock:
                    self.under_way.remove(task)
                self._replies.put((task, reply))
            if process is not None:
                retire(process)

    def _start(self, said: IO[bytes]) -> subprocess.Popen[str] | None:
        with self._lock:
            if self._stopped.is_set():
                return None
            process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(ROOT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                encoding="utf-8",
                start_new_session=True,
                env={"OMP_NUM_THREADS": "1", **os.environ},
            )
            self._processes.add(process)
            return process


def ask(process: subprocess.Popen[str], task: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give a process a task, and wait for its reply; None if it died."""
    assert process.stdin is not None  # both are pipes
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except OSError:
        return None
    return json.loads(line) if line.endswith("\n") else None


def retire(process: subprocess.Popen[str]) -> None:
    """Let a process end, and close its pipes."""
    with contextlib.suppress(OSError):
        process.communicate()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    process.wait()


def last_line(said: IO[bytes] | None) -> str:
    """Return the last line that a process wrote to its standard error."""
    if said is None:
        return ""
    said.seek(0)
    lines = said.read().decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
