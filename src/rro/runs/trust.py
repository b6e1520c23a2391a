"""Whether a run folder was made by this user on this machine: the code that its configuration names
then is the user's own. A folder of somebody else is a program.

A secret in the user's state folder signs the configuration of each run that is made here. Without a
home that can be written, no folder is known again."""

from __future__ import annotations

import hmac
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from rro.config import Config

# Settings that run a program, or code that comes with a model, wherever they stand.
_PROGRAMS = ("python", "trust_remote_code")
# What an environment's options name as code.
_CODE = re.compile(r"[\w.]+:[\w.-]+")


def signature(text: str) -> str | None:
    """This user's signature of a configuration; None where no secret can be kept."""
    secret = _secret()
    return hmac.new(secret, text.encode(), sha256).hexdigest() if secret else None


def is_signed(text: str, signed: object) -> bool:
    """Whether `signed` is this user's signature of a configuration."""
    own = signature(text)
    return own is not None and isinstance(signed, str) and hmac.compare_digest(own, signed)


def code_named(config: Config) -> str | None:
    """What a configuration has run beyond installed plug-ins, e.g. "environment.name =
    'my_module:open'"; None for nothing."""
    named = {
        "environment.name": config.environment.name,
        "policy.backend": config.policy.backend,
        "explore.strategy": config.explore.strategy,
        "credit.name": config.credit.name,
        "optimise.learner": config.optimise.learner,
    }
    found = [f"{key} = {name!r}" for key, name in named.items() if name and ":" in name]
    found += [f"{key} = {value!r}" for key, value in _programs(config.model_dump(mode="json"))]
    return found[0] if found else None


def _programs(table: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _programs(value, f"{path}{key}.")
        elif (key in _PROGRAMS and value) or (
            path.startswith("environment.") and isinstance(value, str) and _CODE.fullmatch(value)
        ):
            yield f"{path}{key}", value


def _secret() -> bytes | None:
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    file = Path(state).expanduser() / "rro" / "secret"
    with suppress(OSError, RuntimeError):
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                os.write(handle, secrets.token_bytes(32))
                os.close(handle)
        return file.read_bytes() or None
    return None
