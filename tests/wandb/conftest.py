"""An unmodified W&B client that talks to the fake backend, and finds nothing of the person who runs the tests."""

import os
import sys

import pytest

from gaugefix.demo.extras import installed
from tests.wandb.fake_backend import VERSION, FakeBackend


def pytest_collection_modifyitems(items):
    """The calls of the client change from one minor release to the next, so the fake is held to the one it knows."""
    found = installed("wandb")
    if not (found or "").startswith(f"{VERSION}."):
        skip = pytest.mark.skip(reason=f"the fake backend was written for the calls of wandb {VERSION}, got {found}")
        for item in items:
            if "backend" in getattr(item, "fixturenames", ()) and item.path.parent.name == "wandb":
                item.add_marker(skip)


@pytest.fixture
def nobody(monkeypatch, tmp_path_factory):
    """A person without an account or settings; subprocesses inherit it."""
    wandb = pytest.importorskip("wandb")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    for name in ("WANDB_DIR", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(home))
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "GAUGEFIX_RUN_DIRECTORY"):  # recipes leave these behind
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    yield home
    wandb.teardown()  # the next test begins with a client that remembers nothing


@pytest.fixture
def backend(nobody, monkeypatch):
    """The fake, and a person who is logged in to it."""
    with FakeBackend() as fake:
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        yield fake
        sys.modules["wandb"].teardown()  # while the fake can still answer
    assert not fake.refused
