"""Settings for every test."""

import os

import pytest
from hypothesis import settings

_MOST_WORKERS = 8
"""Each takes about 1.5 GB."""

if "PYTEST_XDIST_WORKER" in os.environ:  # one core each, for what torch computes and for programs that tests start
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test is timed, so an example may take as long as it takes. The parent is hypothesis's own choice ("ci" in CI).
settings.register_profile("gaugefix", settings(), deadline=None)
settings.load_profile("gaugefix")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One worker per core for the whole suite; none for files that are named, which start at once that way."""
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_WORKERS) if cores > 1 else 0
