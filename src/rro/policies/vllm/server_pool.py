"""The servers that run now: policies with the same whole model share one, whatever their adapters.

Does not know vLLM: only that a server can load adapters and be stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rro.errors import UsageError
from rro.policies.vllm.options import ServedWeights


class Server(Protocol):
    """A running server with one whole model."""

    def load(self, adapter: Path) -> None:
        """Make a LoRA adapter ready; requests name it by its folder from then on. Raises RroError
        if the server cannot load it."""
        ...

    def stop(self) -> None:
        """End the server; called once."""
        ...


@dataclass(eq=False)
class _Entry:
    """A server, what tells it apart, the largest rank of its adapters, and its users."""

    server: Any
    key: str
    rank: int
    users: int = 0


_entries: list[_Entry] = []
_lock = threading.Lock()


def acquire(key: str, weights: ServedWeights, start: Callable[[], Server]) -> Any:
    """A running server with the same key (everything that tells servers apart except adapters)
    whose rank fits the weights' adapter, or a new one; the adapter is loaded. Call `release`
    afterwards. The lock is held while a server starts, so that none is started twice."""
    with _lock:
        fitting = [entry for entry in _entries if entry.key == key and entry.rank >= weights.rank]
        entry = fitting[0] if fitting else _Entry(start(), key, weights.rank)
        try:
            if weights.adapter is not None:
                entry.server.load(weights.adapter)
        except BaseException:
            if not entry.users:
                entry.server.stop()
            raise
        if not entry.users:
            _entries.append(entry)
        entry.users += 1
        return entry.server


def release(server: Server) -> None:
    """Count one user less; the last one stops the server."""
    with _lock:
        entry = next(entry for entry in _entries if entry.server is server)
        entry.users -= 1
        if entry.users:
            return
        _entries.remove(entry)
    server.stop()


def rename(server: Server, key: str) -> None:
    """The server is about to serve another whole model, known by `key`. Raises UsageError where
    other policies use it, too."""
    with _lock:
        entry = next(entry for entry in _entries if entry.server is server)
        if entry.users > 1:
            raise UsageError("another policy uses the same server")
        entry.key = key


def running() -> list[Any]:
    """The servers that are in use now."""
    with _lock:
        return [entry.server for entry in _entries]
