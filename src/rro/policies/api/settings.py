"""The options of `backend = "openai"`."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from rro.config import Section


class OpenAIConfig(Section):
    """A server that speaks OpenAI's API."""

    base_url: str = "http://127.0.0.1:8000/v1"
    """Address of the API, without user, password or query."""
    model: str | None = None
    """The model, as the server calls it. Default: the only one that it lists."""
    models: dict[str, str] = Field(default_factory=dict)
    """What the server calls the run's own weights, by their label (`sft`, `rro-1`, ...)."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key. The key itself is never written anywhere."""
    tokens: Literal["auto", "require", "none"] = "auto"
    """Token ids in and out: if the server can (`auto`), always (`require`), or never (`none`)."""
    concurrency: int = Field(64, ge=1)
    """Requests in flight at most; fewer while the server is overloaded."""
    timeout: float = Field(120.0, gt=0)
    """Seconds for one request."""
    retries: int = Field(6, ge=0)
    """How often a request is retried, with back-off, before its rollout counts as failed."""
    patience: float = Field(600.0, ge=0)
    """Seconds that a request may wait in all between its attempts, also because the server asks for
    a pause, before its rollout counts as failed."""

    outage: float = Field(3600.0, ge=0)
    """Seconds for which a run waits where the server was there and can no longer be reached. Then
    the run ends, to be resumed. 0: it does not wait, and counts it as a failed attempt."""

    @field_validator("base_url")
    @classmethod
    def _without_secrets(cls, url: str) -> str:
        """The recipe is copied into the run folder, and addresses are in messages and journals."""
        parts = urlsplit(url)
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise PydanticCustomError(
                "secret", "write an address without user, password, query or fragment"
            )
        return url
