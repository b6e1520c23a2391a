"""Reward Rising Optimization: train LLM agents step by step from process rewards that rise (arXiv
2505.20737).

The names below are what a script needs (docs/python.md); each is imported when it is first used, so
that `import rro` costs nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rro.environments.base import Benchmark, Environment, TaskList
    from rro.errors import RroError, UsageError
    from rro.exploration.drawing import draw_tree
    from rro.exploration.sampler import Sampler
    from rro.exploration.strategies.base import Strategy
    from rro.exploration.tree import Node, Tree
    from rro.learning.base import Learner
    from rro.learning.credit.base import Credit
    from rro.pipeline.run import open_run
    from rro.policies.base import Policy
    from rro.policies.scripted import ScriptedPolicy
    from rro.runs.folder import RunFolder
    from rro.scripting import (
        Exploration,
        evaluate,
        explore,
        load_policy,
        make_model,
        open_environment,
        play_experts,
        train,
    )
    from rro.types import (
        Completion,
        Message,
        PreferencePair,
        ProcessReward,
        SamplingParams,
        Source,
        Step,
        StepResult,
        StopReason,
        Task,
        Trajectory,
        Usage,
    )

__version__ = "0.2.0.dev0"

_HOMES = {
    "rro.environments.base": ("Benchmark", "Environment", "TaskList"),
    "rro.errors": ("RroError", "UsageError"),
    "rro.exploration.drawing": ("draw_tree",),
    "rro.exploration.sampler": ("Sampler",),
    "rro.exploration.strategies.base": ("Strategy",),
    "rro.exploration.tree": ("Node", "Tree"),
    "rro.learning.base": ("Learner",),
    "rro.learning.credit.base": ("Credit",),
    "rro.pipeline.run": ("open_run",),
    "rro.runs.folder": ("RunFolder",),
    "rro.policies.base": ("Policy",),
    "rro.policies.scripted": ("ScriptedPolicy",),
    "rro.scripting": (
        "Exploration",
        "evaluate",
        "explore",
        "load_policy",
        "make_model",
        "open_environment",
        "play_experts",
        "train",
    ),
    "rro.types": (
        "Completion",
        "Message",
        "PreferencePair",
        "ProcessReward",
        "SamplingParams",
        "Source",
        "Step",
        "StepResult",
        "StopReason",
        "Task",
        "Trajectory",
        "Usage",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Benchmark",
    "Completion",
    "Credit",
    "Environment",
    "Exploration",
    "Learner",
    "Message",
    "Node",
    "Policy",
    "PreferencePair",
    "ProcessReward",
    "RroError",
    "RunFolder",
    "Sampler",
    "SamplingParams",
    "ScriptedPolicy",
    "Source",
    "Step",
    "StepResult",
    "StopReason",
    "Strategy",
    "Task",
    "TaskList",
    "Trajectory",
    "Tree",
    "Usage",
    "UsageError",
    "draw_tree",
    "evaluate",
    "explore",
    "load_policy",
    "make_model",
    "open_environment",
    "open_run",
    "play_experts",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'rro' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
