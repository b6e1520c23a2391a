"""The contract of an environment under its name in rro 0.1. Import it from `rro` instead."""

from __future__ import annotations

import warnings

from rro.environments.base import Agent as ExpertPolicy
from rro.environments.base import Benchmark, Environment, Forkable, TaskList

__all__ = ["Benchmark", "Environment", "ExpertPolicy", "Forkable", "TaskList"]

warnings.warn(
    "rro.envs.base is now rro.environments.base: import Benchmark, Environment and TaskList from "
    "rro; the old name goes in the next minor version",
    FutureWarning,
    stacklevel=2,
)
