"""What a recipe takes at most, before it runs: policy calls, and tokens that are sampled and
trained on, each with how it was computed (docs/reproduce.md).

Knows no speed, no price and no model; for memory see `rro.pipeline.memory`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from rro.config import Config, TrainingConfig
from rro.environments.base import Benchmark, Environment, TaskList
from rro.environments.splits import tasks_of
from rro.episodes.experts import read_conversations
from rro.errors import counted
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.learning.base import Learner
from rro.learning.credit.base import Credit, CreditContext
from rro.learning.credit.choosing import credit_of, credited
from rro.learning.credit.comparisons import comparisons
from rro.pipeline.choices import Chosen
from rro.pipeline.dry_run import Grown, grow_largest
from rro.types import Task


@dataclass(frozen=True)
class Part:
    """A part of a run at its most: policy calls, sampled tokens, tokens trained on, and how they
    were computed. Retries after failures come on top. A training has its `options`; `sides` is 2
    where its rows are pairs, and `messages` of a row carry loss at most."""

    name: str
    how: str
    calls: int = 0
    sampled: int = 0
    trained: int = 0
    options: TrainingConfig | None = None
    sides: int = 1
    messages: int = 0


def parts(config: Config, benchmark: Benchmark) -> list[Part]:
    """SFT, exploration, optimisation, closing pass and evaluation of a recipe, each where it has
    one. Raises RroError where strategy or credit fails, or calls too often to be counted."""
    train = len(tasks_of(benchmark, config.environment.train_split))
    tasks, grown = min(config.explore.tasks or train, train), _grown(config, benchmark)
    found = [_exploration(config, grown, tasks)]
    if config.sft is not None:
        found.insert(0, _training("sft", config.sft, _demonstrations(config, train)))
    found += _optimisation(config, benchmark, grown, tasks)
    if most := config.closing.successes:
        explored = tasks * (config.rounds.count if config.rounds.tasks == "new" else 1)
        found.append(_training("closing pass", config.closing, most * min(train, explored)))
    steps = _steps(config, benchmark)
    trainings = [replace(part, messages=steps) for part in found]
    return [*trainings, *_evaluation(config, benchmark)]


def stated(config: Config) -> Benchmark | None:
    """In place of an environment that is not at hand: one with as many tasks and steps as the
    recipe says; None where it does not say `explore.tasks`, `evaluate.tasks` and
    `environment.max_steps`."""
    explored, measured = config.explore.tasks, config.evaluate.tasks
    steps = config.environment.max_steps
    if explored is None or measured is None or steps is None:
        return None
    count = max(explored * config.rounds.count, measured, config.experts.episodes or 0)
    tasks = [Task(str(number)) for number in range(count)]
    section = config.environment
    named = ("train", section.train_split, section.test_split, section.validation_split)
    splits = {split.partition("[")[0]: tasks for split in named}
    return TaskList(section.name, Environment, splits, steps)


def _demonstrations(config: Config, train: int) -> int:
    """Rows of SFT: a file's, or an episode of each train task, at most `experts.episodes`."""
    file, most = config.experts.file, config.experts.episodes
    if file is not None and (most is None or file.is_file()):
        train = len(read_conversations(file))
    return min(most or train, train)


def _steps(config: Config, benchmark: Benchmark) -> int:
    return config.environment.max_steps or benchmark.max_steps


def _grown(config: Config, benchmark: Benchmark) -> list[Grown]:
    """The largest trees of one task by the recipe's strategy."""
    chosen = Chosen(config)
    return grow_largest(
        lambda experts: chosen.made_strategy(benchmark, experts),
        _steps(config, benchmark),
        config.policy.max_new_tokens,
        benchmark.reward_range,
    )


def _exploration(config: Config, grown: Sequence[Grown], tasks: int) -> Part:
    rounds, budget, each = config.rounds, config.explore.budget, config.policy.max_new_tokens
    in_task = max(tree.tree.usage().policy_calls for tree in grown)
    calls = _least(tasks * in_task, budget.policy_calls)
    sampled = _least(calls * each, budget.generated_tokens)
    total = _least(
        rounds.count * sampled,
        # The round that is under way ends.
        rounds.generated_tokens and rounds.generated_tokens + sampled,
    )
    counts = f"{rounds.count} x {counted(tasks, 'tasks')} x {counted(in_task, 'calls')}"
    how = f"{counts} x {each} tokens"
    if total < rounds.count * tasks * in_task * each:
        how += ", but no more than the recipe's budget"
    return Part("exploration", how, rounds.count * calls, total)


def _least(count: int, limit: int | None) -> int:
    return count if limit is None else min(count, limit)


def _optimisation(
    config: Config, benchmark: Benchmark, grown: Sequence[Grown], tasks: int
) -> Iterator[Part]:
    """Nothing for a learner of one's own whose options are no TrainingConfig."""
    learner: Learner = Chosen(config).made_learner(grown[0].strategy)
    options: Any = getattr(learner, "options", None)
    if isinstance(options, TrainingConfig):
        rows = max(_most_rows(_credit(config, benchmark, each), each) for each in grown)
        yield _training(learner.name, options, config.rounds.count * tasks * rows, learner.takes)


def _credit(config: Config, benchmark: Benchmark, grown: Grown) -> Credit:
    context = CreditContext(
        grown.experts,
        benchmark.reward_range,
        benchmark.success_reward,
        strategy=grown.strategy.name,
    )
    return credit_of(grown.strategy, context, config.credit)


def _most_rows(credit: Credit, grown: Grown) -> int:
    """The rows of a tree; of a credit that compares siblings, as if each comparison gave all the
    pairs that it can."""
    siblings = getattr(credit, "siblings", None)
    if siblings is None:
        return len(credited(credit, grown.tree))
    compared = comparisons(grown.tree, getattr(credit, "off_path", "no"))
    sizes = [len(others) for _, others in compared]
    return sum(map(bool, sizes)) if siblings == "lowest" else sum(sizes)


def _training(name: str, options: TrainingConfig, rows: int, takes: str = "rows") -> Part:
    sides, rows = 2 if takes == "pairs" else 1, ceil(rows * options.epochs)
    if getattr(options, "imitate", 0):  # each step replays successes, too
        rows += ceil(rows / options.batch_size) * getattr(options, "imitate_batch", 0)
    twice, trained = "2 x " if sides == 2 else "", rows * sides * options.max_length
    kind = takes if sides == 2 else "rows"
    how = f"{counted(rows, kind)} over all epochs x {twice}{options.max_length} tokens"
    return Part(name, how, trained=trained, options=options, sides=sides)


def _evaluation(config: Config, benchmark: Benchmark) -> Iterator[Part]:
    section, rounds, steps = config.evaluate, config.rounds, _steps(config, benchmark)
    policies = 1 + ceil(rounds.count / rounds.evaluate_every) + bool(config.closing.successes)
    splits = [config.environment.test_split]
    splits += [config.environment.validation_split] if section.validation else []
    tasks = 0
    for split in splits:
        found = len(tasks_of(benchmark, split))
        tasks += min(section.tasks or found, found)
    episodes = section.episodes + section.greedy
    yield _played(
        "evaluation", config, (policies, "policies"), (tasks * episodes, "episodes"), steps
    )
    if section.trend_tasks:
        strategy = FixedSizeExploration(section.trend_rollouts, candidates=1, estimate_start=True)
        trees = grow_largest(lambda experts: strategy, steps, config.policy.max_new_tokens)
        calls = trees[0].tree.usage().policy_calls
        yield _played(
            "trend", config, (policies, "policies"), (section.trend_tasks, "tasks"), calls
        )


def _played(
    name: str, config: Config, policies: tuple[int, str], pieces: tuple[int, str], calls: int
) -> Part:
    each, total = config.policy.max_new_tokens, policies[0] * pieces[0] * calls
    counts = " x ".join(counted(count, what) for count, what in (policies, pieces))
    return Part(name, f"{counts} x {counted(calls, 'calls')} x {each} tokens", total, total * each)
