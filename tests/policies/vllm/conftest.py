"""The model of these tests."""

import pytest

from rro.config import TinyConfig
from rro.models.loading import build_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    build_tiny(
        TinyConfig(hidden_size=32, intermediate_size=32, layers=2, heads=2, kv_heads=2),
        ["a b"],
        0,
        folder,
    )
    return folder
