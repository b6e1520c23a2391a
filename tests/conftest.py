"""Shared fixtures. Benchmark data and recordings are not part of this repository; tests that need
them skip."""

import gc
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No test is about time: a busy machine must not fail one.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
# Ray lets other processes go first: beside other tests its workers would take minutes to start.
os.environ.setdefault("RAY_worker_niceness", "0")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with benchmark data and recorded episodes, or a skip that says so."""
    folder = Path(os.environ.get("RRO_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "conformance").is_dir():
        pytest.skip(f"no recordings at {folder} (set RRO_SHARED)")
    return folder


def pytest_collection_finish() -> None:
    """The imported modules stay: without them, a collection of garbage, which each training forces,
    takes a tenth of the time."""
    gc.freeze()
