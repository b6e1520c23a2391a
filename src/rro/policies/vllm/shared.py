"""Engines by what they run: two policies with the same whole model share one, also where adapters
differ. No vLLM here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rro.policies.vllm.options import Weights


class Engine(Protocol):
    """A running engine with one whole model."""

    def load(self, adapter: Path) -> None:
        """Make a LoRA adapter ready, which requests name by its folder from then on. Raises
        RroError if it cannot."""
        ...

    def stop(self) -> None:
        """End it and give back what it holds; once."""
        ...


@dataclass(eq=False)
class _Used:
    engine: Any
    key: str
    rank: int
    users: int = 0


_used: list[_Used] = []
_lock = threading.Lock()


def borrow(key: str, weights: Weights, start: Callable[[], Engine]) -> Any:
    """The running engine with this key (whatever tells engines apart, but adapters) that can take
    the weights' adapter, or a new one. Give it back with `give_back`. The lock is held while one
    starts: two at once would start both."""
    with _lock:
        fit = [used for used in _used if used.key == key and used.rank >= weights.rank]
        used = fit[0] if fit else _Used(start(), key, weights.rank)
        try:
            if weights.adapter is not None:
                used.engine.load(weights.adapter)
        except BaseException:
            if not used.users:
                used.engine.stop()
            raise
        if not used.users:
            _used.append(used)
        used.users += 1
        return used.engine


def give_back(engine: Engine) -> None:
    """One user less; the last one stops it."""
    with _lock:
        used = next(used for used in _used if used.engine is engine)
        used.users -= 1
        if used.users:
            return
        _used.remove(used)
    engine.stop()
