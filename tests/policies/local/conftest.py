"""The model of these tests."""

from typing import Any

import pytest
from tiny_model import make_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A random model and its tokenizer."""
    return make_tiny(tmp_path_factory.mktemp("tiny"))
