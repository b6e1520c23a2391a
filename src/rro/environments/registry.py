"""Environments by name: opens the benchmark that a recipe names (see `rro.plugins`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rro import plugins
from rro.config import EnvironmentConfig, parse_options
from rro.environments.base import Benchmark
from rro.errors import UsageError


def register(name: str, factory: Callable[..., Benchmark]) -> None:
    """Make an environment available to recipes as `environment.name = name`. `factory` takes
    options, as keyword parameters or as a pydantic model called `options`, and returns a Benchmark.
    Raises UsageError for a name that is taken."""
    plugins.ENVIRONMENTS.register(name, factory)


def open_benchmark(name: str, options: Mapping[str, Any] | None = None) -> Benchmark:
    """Open the benchmark called `name`. Raises UsageError for an unknown name or for options that
    it does not take."""
    return open_environment(EnvironmentConfig(name=name, options=dict(options or {})))


def open_environment(section: EnvironmentConfig) -> Benchmark:
    """Open the benchmark of a recipe's `[environment]`, whose episodes are played where its
    `placement` says. Raises as `open_benchmark` does."""
    benchmark = open_here(section)
    if section.placement == "here":
        return benchmark
    from rro.environments.on_ray import RemoteBenchmark

    return RemoteBenchmark(benchmark, section)


def open_here(section: EnvironmentConfig) -> Benchmark:
    """As `open_environment`, in this process wherever the recipe places it."""
    if not section.name:
        known = ", ".join(plugins.ENVIRONMENTS.names())
        raise UsageError(
            f"environment.name is missing: set it to one of {known}, or to module:attribute of "
            "your own"
        )
    plugin = plugins.ENVIRONMENTS.find(section.name)
    benchmark = plugin.make(parse_options(section, plugin, "environment"))
    if not isinstance(benchmark, Benchmark):
        raise UsageError(
            f"environment {section.name} returned a {type(benchmark).__name__}, not a Benchmark"
        )
    return benchmark
