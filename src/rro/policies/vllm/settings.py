"""The options of `backend = "vllm"`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rro.config import Section


class VllmConfig(Section):
    """A vLLM server that rro starts, watches and stops."""

    python: Path | None = None
    """The interpreter of an environment with vLLM, in which the server runs. Default: this
    interpreter, if it has vLLM."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision; `auto` follows `model.dtype`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further engine arguments, as vLLM names them."""
    stay: bool | Literal["auto"] = "auto"
    """Whether the server stays up between the rounds of a run and takes over their weights. auto:
    on a CPU. On a GPU it keeps its memory while the next policy is trained: say true where both
    fit (`gpu_memory_utilization` in `options`)."""
    start_timeout: float = Field(900.0, gt=0)
    """Seconds until the server must answer; compiling takes minutes."""
