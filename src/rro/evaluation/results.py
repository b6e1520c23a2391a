"""results.json: everything that a script or a table wants to know of a run. Its form is described
in docs/data-formats.md."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rro import __version__
from rro.codec import first_problem, from_plain, to_plain
from rro.config import Config
from rro.environments.base import Benchmark
from rro.errors import DataError
from rro.evaluation.compare import to_first_policy
from rro.evaluation.figures import ANY_REWARD, journalled_evaluation
from rro.runs.folder import stage_records
from rro.runs.journal import Journal

# The journal's record of which rewards are possible.
_SCALE = ("rewards", "scale")

EPISODES = {"test": "evaluation", "validation": "validation"}
"""The kind of the journal's records of evaluated episodes, by split."""


@dataclass(frozen=True)
class RewardScale:
    """Which rewards are possible (`low` to `high`), and from which on one is a success. None: not
    known, or without an end."""

    low: float | None = None
    high: float | None = None
    success: float | None = None

    @property
    def range(self) -> tuple[float, float]:
        """From the lowest to the highest reward."""
        low, high = ANY_REWARD
        return low if self.low is None else self.low, high if self.high is None else self.high


def keep_scale(journal: Journal, benchmark: Benchmark) -> None:
    """Journal the scale of a benchmark's rewards, once: what reads the run opens no environment."""
    if _SCALE not in journal:
        low, high = (end if math.isfinite(end) else None for end in benchmark.reward_range)
        scale = RewardScale(low, high, benchmark.success_reward)
        journal.append(*_SCALE, to_plain(scale))


def kept_scale(journal: Journal) -> RewardScale:
    """What `keep_scale` has journalled; without it nothing is known. Raises DataError where the
    record is damaged."""
    record = journal.get(*_SCALE)
    try:
        return from_plain(RewardScale, record) if record else RewardScale()
    except ValueError as error:
        raise DataError(f"{journal.place(*_SCALE)}: damaged: {first_problem(error)}") from None


def collect_results(
    journal: Journal,
    config: Config,
    benchmark: Benchmark,
    labels: Sequence[str],
    expected: Mapping[str, int],
    split: str = "test",
) -> dict[str, Any]:
    """A run's results on a split, from its journal: the evaluations of the policies `labels`, in
    the modes and with the numbers of episodes of `expected`, their differences, and every finished
    stage.

    Raises RroError where a policy has no finished episode in one of the modes."""
    resamples, seed = config.evaluate.bootstrap, config.seed
    evaluations = [
        journalled_evaluation(
            journal,
            label,
            mode,
            expected=episodes,
            success_reward=benchmark.success_reward,
            reward_range=benchmark.reward_range,
            resamples=resamples,
            seed=seed,
            kind=EPISODES[split],
        )
        for label in labels
        for mode, episodes in expected.items()
    ]
    rewards = {
        (evaluation.label, evaluation.mode): evaluation.rewards for evaluation in evaluations
    }
    return {
        "name": config.name,
        "seed": seed,
        "split": split,
        "success_reward": benchmark.success_reward,
        "strategy": config.explore.strategy,
        "environment": {"name": config.environment.name, **benchmark.provenance()},
        "versions": _versions(),
        "stages": stage_records(journal),
        "evaluations": [evaluation.plain() for evaluation in evaluations],
        "differences": [
            difference.plain() for difference in to_first_policy(rewards, resamples, seed)
        ],
    }


@dataclass(frozen=True)
class LearningCost:
    """What learning took: all rounds of exploration and training, and the closing pass. `seconds`
    are of wall time."""

    generated_tokens: int = 0
    prompt_tokens: int = 0
    policy_calls: int = 0
    optimiser_steps: int = 0
    seconds: float = 0.0


def learning_cost(stages: Mapping[str, Mapping[str, Any]]) -> LearningCost:
    """The cost of the stages that results.json holds."""
    found = [
        stage
        for name, stage in stages.items()
        if name.startswith(("explore-", "optimise-")) or name == "closing"
    ]
    usages = [stage["usage"] for stage in found if stage.get("usage")]
    counts = {
        name: sum(usage[name] for usage in usages)
        for name in ("generated_tokens", "prompt_tokens", "policy_calls")
    }
    steps = sum(stage["training"]["steps"] for stage in found if stage.get("training"))
    seconds = sum(stage["seconds"] for stage in found)
    return LearningCost(**counts, optimiser_steps=steps, seconds=seconds)


def load_results(run: Path) -> dict[str, Any]:
    """A run folder's results.json, under the name of the folder. Raises DataError where there is
    none, or it is damaged."""
    file = run / "results.json"
    try:
        results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{file}: {error.strerror}; evaluate the run first (rro evaluate {run})"
        ) from None
    except ValueError as error:
        raise DataError(f"{file}: {error}; make it again (rro evaluate {run})") from None
    if not isinstance(results, dict) or not results.get("evaluations"):
        raise DataError(f"{file}: no evaluation in it; make it again (rro evaluate {run})")
    return {**results, "name": run.resolve().name}


def _versions() -> dict[str, str]:
    return {"rro": __version__} | {name: version(name) for name in ("torch", "transformers", "trl")}
