"""What every test of a recipe needs."""

import pytest


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    """seed_everything and the run directory leave variables behind."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "GAUGEFIX_RUN_DIRECTORY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
