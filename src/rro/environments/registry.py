"""Benchmarks by name. A name is a registered one or `module:attribute` of the user's own (called
with the options)."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from rro.environments.base import Benchmark
from rro.errors import UsageError

_BUILT_IN = {
    "webshop": "rro.webshop:open_webshop",
    "intercode-sql": "rro.intercode_sql:open_intercode_sql",
}
_registered: dict[str, Callable[..., Benchmark]] = {}


def register(name: str, factory: Callable[..., Benchmark]) -> None:
    """Make `factory(**options)` available to recipes as `environment.name = name`."""
    if name in _BUILT_IN or name in _registered:
        raise UsageError(f"an environment named {name!r} is registered already")
    _registered[name] = factory


def open_benchmark(name: str, options: Mapping[str, Any] | None = None) -> Benchmark:
    """The benchmark called `name`. Raises UsageError for an unknown name or options that it does
    not take."""
    factory = _registered.get(name) or _imported(_BUILT_IN.get(name, name))
    if not callable(factory):
        raise UsageError(
            f"environment {name} is a {type(factory).__name__}: name a function that returns a "
            "Benchmark"
        )
    try:
        benchmark = factory(**dict(options or {}))
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise UsageError(
            f"environment {name}: {error}; see environment.options in the recipe"
        ) from error
    if not isinstance(benchmark, Benchmark):
        raise UsageError(f"environment {name} gave a {type(benchmark).__name__}, not a Benchmark")
    return benchmark


def _imported(target: str) -> Callable[..., Benchmark]:
    module, colon, attribute = target.partition(":")
    if not colon:
        known = ", ".join(sorted([*_BUILT_IN, *_registered]))
        raise UsageError(
            f"unknown environment {target!r}: choose one of {known}, or module:attribute of your "
            "own"
        )
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # as `python -m` does: one's own module lies beside the recipe
    try:
        return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as error:
        raise UsageError(f"environment {target}: {error}") from error
