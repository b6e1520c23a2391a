"""What a Python script calls: policies, environments, exploration, training and evaluation without
a recipe.

Every function is synchronous, takes plain arguments with the recipe's defaults, and returns
records. What they share with the pipeline lies below both: this module holds no method of its own.
`import rro` gives its names (docs/python.md)."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rro import plugins
from rro.config import (
    CreditConfig,
    EnvironmentConfig,
    ExpertsConfig,
    ExploreConfig,
    ModelConfig,
    OptimiseConfig,
    PolicyConfig,
    TinyConfig,
    parse_options,
)
from rro.environments.base import Benchmark
from rro.environments.registry import open_environment as _open_environment
from rro.episodes.experts import scripted_experts
from rro.episodes.loop import Limits
from rro.errors import UsageError
from rro.evaluation.evaluate import evaluate as _evaluate
from rro.evaluation.figures import Evaluation, journalled_evaluation
from rro.exploration import explorer
from rro.exploration.sampler import ExplorationContext
from rro.exploration.strategies.base import Strategy, StrategyContext
from rro.exploration.tree import Tree
from rro.learning.base import TrainingContext, TrainingReport
from rro.learning.credit.base import CreditContext
from rro.learning.credit.choosing import credit_of
from rro.policies.base import Policy, PolicyContext
from rro.runs.journal import Journal
from rro.runs.progress import Progress
from rro.types import Message, PreferencePair, SamplingParams, Task, Trajectory

Model = str | Path


def open_environment(name: str, **options: Any) -> Benchmark:
    """The benchmark of a registered environment, or of `module:attribute`, with its options.

    Raises UsageError for an unknown name or option, DataError where its data is missing."""
    return _open_environment(EnvironmentConfig(name=name, options=options))


def load_policy(model: Model, backend: str = "transformers", **settings: Any) -> Policy:
    """A policy that answers with the weights of `model`: the name of a model (see `model.name`), or
    the folder of a checkpoint. `settings` are those of a recipe's `[policy]`; a backend's own
    options go into `options`.

    Raises UsageError for a model, backend or setting that does not fit. Call `close` on it when it
    is done with."""
    section = PolicyConfig(backend=backend, **settings)
    plugin = plugins.POLICIES.find(backend)
    context = PolicyContext(
        name=str(model),
        label=Path(model).name,
        model=ModelConfig(name=str(model)),
        settings=section,
        find_weights=lambda: None,
        start=None,
        threads=None,
        logs=Path("logs"),
    )
    policy: Policy = plugin.make(parse_options(section, plugin, "policy"), context)
    return policy


def make_model(
    demonstrations: Sequence[Trajectory], folder: Path | str, seed: int = 0, **sizes: Any
) -> Path:
    """A small Llama with random weights and a tokenizer made of the demonstrations' text, written
    to `folder`, which is returned. `sizes` are the settings of a recipe's `[model.tiny]`. Raises
    UsageError for sizes that do not fit."""
    from rro.models.loading import build_tiny

    messages = [message for episode in demonstrations for message in episode.messages()]
    texts = [m.text for m in messages] + [m.tools for m in messages if m.tools]
    build_tiny(TinyConfig(**sizes), texts, seed, Path(folder))
    return Path(folder)


def play_experts(
    environment: Benchmark, tasks: Sequence[Task], noise: float = 0.0, seed: int = 0
) -> list[Trajectory]:
    """An episode of the environment's scripted expert for each task; it errs with probability
    `noise` where it has a choice. Raises UsageError where the environment has no expert."""
    return scripted_experts(
        environment, tasks, ExpertsConfig(noise=noise), Limits(environment.max_steps), seed
    )


@dataclass(frozen=True)
class Exploration:
    """Finished trees, in the order of their tasks, and the ids of the tasks that failed."""

    trees: tuple[Tree, ...]
    failed: tuple[str, ...]
    strategy: Strategy
    context: CreditContext

    @property
    def pairs(self) -> list[PreferencePair]:
        """The preference pairs of all trees, by the strategy's own credit; none where it gives
        other rows."""
        credit = credit_of(self.strategy, self.context)
        return self.rows() if credit.gives == "pairs" else []

    def rows(self, credit: str | None = None, **options: Any) -> list[Any]:
        """What a learner takes: the rows that a credit gives (default: the strategy's own), with
        its options."""
        made = credit_of(self.strategy, self.context, CreditConfig(name=credit, options=options))
        credit_of_all = made.fitted(self.trees)
        return [row for tree in self.trees for row in credit_of_all.rows(tree)]


def explore(
    policy: Policy,
    environment: Benchmark,
    tasks: Sequence[Task],
    strategy: str | Strategy = "rro",
    *,
    pricer: Policy | None = None,
    experts: Sequence[Trajectory] = (),
    folder: Path | str | None = None,
    temperature: float = 1.0,
    max_new_tokens: int = 128,
    concurrency: int = 32,
    seed: int = 0,
    **options: Any,
) -> Exploration:
    """Grow the tree of each task with a strategy, given by name with its `options`, or made by
    yourself.

    `pricer` rolls out (default: the policy itself); `experts` are episodes for strategies that need
    them. With a `folder`, each finished piece is journalled there, and the same call again goes on
    from it. Raises UsageError for what does not fit, and RestoreError where the environment cannot
    be forked faithfully; a task whose rollouts all fail is in `failed`."""
    by_task = {episode.task: episode for episode in experts}
    known = StrategyContext(by_task, environment.reward_range, environment.success_reward)
    made = _strategy(strategy, options, known)
    params = SamplingParams(temperature, max_new_tokens=max_new_tokens)
    trees: dict[str, Tree] = {}

    def keep(tree: Tree) -> None:
        trees[tree.task.id] = tree

    with _journal(folder) as journal, Progress("explore", len(tasks), "tasks") as progress:
        context = ExplorationContext(
            environment,
            policy,
            pricer or policy,
            journal,
            params,
            params,
            Limits(environment.max_steps),
            seed,
        )
        failed = asyncio.run(explorer.explore(tasks, made, context, concurrency, progress, keep))
    finished = tuple(trees[task.id] for task in tasks if task.id in trees)
    credit = CreditContext(
        by_task, environment.reward_range, environment.success_reward, strategy=made.name
    )
    return Exploration(finished, tuple(failed), made, credit)


def train(
    rows: Sequence[PreferencePair] | Sequence[Trajectory] | Sequence[tuple[Message, ...]],
    model: Model,
    output: Path | str,
    learner: str | None = None,
    *,
    reference: Path | str | None = None,
    seed: int = 0,
    **options: Any,
) -> TrainingReport:
    """Train `model` (a name or a checkpoint's folder) on rows, and write the new checkpoint to
    `output`.

    Preference pairs are learned by DPO against `reference` (default: `model`), episodes and
    conversations by SFT; a `learner` by name, or `module:attribute`, takes what it takes. `options`
    are the learner's. The same call again goes on from the last checkpoint. Raises DataError where
    no row can be trained on, UsageError for bad options."""
    found = [row.messages() if isinstance(row, Trajectory) else row for row in rows]
    if not found:
        raise UsageError("there are no rows to train on")
    name = learner or ("dpo" if isinstance(found[0], PreferencePair) else "sft")
    plugin = plugins.LEARNERS.find(name)
    made = plugin.make(
        parse_options(OptimiseConfig(learner=name, options=options), plugin, "optimise")
    )
    context = TrainingContext(ModelConfig(name=str(model)), seed, run=Path(output).name)
    start = None if reference is None else Path(reference)
    report: TrainingReport = made.train(found, None, start, Path(output), context)
    return report


def evaluate(
    policy: Policy,
    environment: Benchmark,
    tasks: Sequence[Task],
    episodes: int = 1,
    *,
    folder: Path | str | None = None,
    temperature: float = 1.0,
    max_new_tokens: int = 128,
    concurrency: int = 64,
    seed: int = 0,
) -> Evaluation:
    """Play `episodes` on each task; returns mean reward and success with intervals by task, and
    what it took.

    A temperature of 0 is greedy. With a `folder`, episodes are journalled there and not repeated.
    Failed episodes are counted, and enter no mean. Raises RroError where none came to its end."""
    params = SamplingParams(temperature, max_new_tokens=max_new_tokens)
    mode = "sampled" if temperature else "greedy"
    with (
        _journal(folder) as journal,
        Progress("evaluate", len(tasks) * episodes, "episodes") as progress,
    ):
        asyncio.run(
            _evaluate(
                tasks,
                environment,
                policy,
                journal,
                label=policy.name,
                mode=mode,
                episodes=episodes,
                params=params,
                limits=Limits(environment.max_steps),
                seed=seed,
                concurrency=concurrency,
                progress=progress,
            )
        )
        expected = len(tasks) * episodes
        return journalled_evaluation(
            journal,
            policy.name,
            mode,
            expected=expected,
            success_reward=environment.success_reward,
            resamples=10_000,
            seed=seed,
        )


def _strategy(name: str | Strategy, options: Mapping[str, Any], known: StrategyContext) -> Strategy:
    if isinstance(name, Strategy):
        if options:
            raise UsageError(
                f"a strategy that is made already takes no options: {', '.join(options)}"
            )
        return name
    plugin = plugins.STRATEGIES.find(name)
    section = ExploreConfig(strategy=name, options=dict(options))
    made: Strategy = plugin.make(parse_options(section, plugin, "explore"), known)
    return made


@contextmanager
def _journal(folder: Path | str | None) -> Iterator[Journal]:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch if folder is None else folder)
        place.mkdir(parents=True, exist_ok=True)
        with Journal(place / "journal.jsonl") as journal:
            yield journal
