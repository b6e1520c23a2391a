"""Many tasks at once: runs a strategy over tasks, journals each finished tree, and sums up what the
trees gave and cost.

What is in memory follows the concurrency, not the number of tasks. A task that fails is dropped
and logged; the others go on. Knows nothing of what is made of the trees (pairs, demonstrations)."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from rro.concurrency import contained, for_each
from rro.errors import RroError, UsageError, describe, kind_of
from rro.exploration.budget import BudgetSpent
from rro.exploration.records import failed_rows, read_tree, tree_record
from rro.exploration.sampler import ContextFull, ExplorationContext, Sampler, TaskFailed
from rro.exploration.strategies.base import Strategy
from rro.exploration.tree import Tree, gap
from rro.exploration.trend import rising_share_by_stage
from rro.runs.progress import Progress
from rro.types import Source, Task, Usage

log = logging.getLogger(__name__)

Observer = Callable[[Tree], str | None]


async def explore(
    tasks: Sequence[Task],
    strategy: Strategy,
    context: ExplorationContext,
    concurrency: int,
    progress: Progress,
    observe: Observer | None = None,
) -> dict[str, str]:
    """Explore every task that the journal does not hold already; returns the ids of those that
    failed, each with the class of its error. `observe` is given each finished tree, new or read
    back, and may return a note for the progress bar.

    Where the budget ends, trees under way are recorded as far as they came, and the other tasks are
    not begun. Raises every RroError but TaskFailed at once: an environment that does not restore,
    say, makes all estimates wrong."""
    _check_distinct(tasks)
    failed = dict[str, str]()

    async def work(task: Task) -> None:
        key = context.key(task)
        new, tree = ("task", key) not in context.journal, None
        if new:
            if context.budget.exhausted:
                return
            try:
                tree = await _explored(task, strategy, context)
            except BudgetSpent:
                return
            except _Dropped as error:
                failed[task.id] = str(error)
                progress.fail(str(error))
        elif observe:
            tree = read_tree(context.journal, key, task)
        note = observe(tree) if tree is not None and observe else None
        _advance(progress, context, new=new, note=note)

    await for_each(tasks, work, min(concurrency, len(tasks)))
    return failed


def _check_distinct(tasks: Sequence[Task]) -> None:
    counts = Counter(task.id for task in tasks)
    if twice := [task_id for task_id, count in counts.items() if count > 1]:
        raise UsageError(
            f"{len(twice)} task ids occur twice ({twice[0]!r} ...): give each task an id of its own"
        )


def _advance(
    progress: Progress, context: ExplorationContext, *, new: bool, note: str | None
) -> None:
    share = context.budget.share()
    spent = "" if share is None else f"{share:.0%} of the budget"
    notes = ", ".join(filter(None, (note, spent)))
    progress.advance(new=new, note=notes, spent=share or 0.0)


class _Dropped(Exception):
    """A task failed; the class of its error."""


async def _explored(task: Task, strategy: Strategy, context: ExplorationContext) -> Tree:
    """The task's finished tree, journalled. Raises _Dropped where it failed."""
    started, sampler = time.perf_counter(), Sampler(context, task)
    try:
        tree, cut = await _explore_task(sampler, strategy)
    except BudgetSpent:
        raise
    except Exception as error:
        if isinstance(error, RroError) and not isinstance(error, TaskFailed):
            raise
        reason = describe(error)
        if isinstance(error, TaskFailed):
            # its sentence has the class already, if there is one
            reason = reason.removeprefix(f"{kind_of(error)}: ")
        log.warning("task %s failed and is dropped: %s", task.id, reason)
        log.debug("task %s", task.id, exc_info=error)
        raise _Dropped(kind_of(error) or _rollouts_failed_by(sampler.tree)) from error
    record = tree_record(tree, strategy.name, cut, time.perf_counter() - started)
    context.journal.append("task", context.key(task), record)
    return tree


def _rollouts_failed_by(tree: Tree) -> str:
    """The class of error that failed most of its rollouts."""
    counts = Counter(str(row["error"]).partition(":")[0] for row in failed_rows(tree))
    return counts.most_common(1)[0][0] if counts else TaskFailed.__name__


async def _explore_task(sampler: Sampler, strategy: Strategy) -> tuple[Tree, bool]:
    """One task's tree, and whether the budget cut it. Raises BudgetSpent where the budget ended
    before anything was chosen."""
    await sampler.start()
    try:
        with contained():
            await strategy.explore(sampler)
    except ContextFull:
        log.info("task %s: the context is full; its trajectory ends there", sampler.task.id)
    except BudgetSpent:
        if not sampler.tree.committed() and not sampler.tree.episodes:
            raise
        return sampler.tree, True
    return sampler.tree, False


@dataclass(frozen=True)
class ExplorationSummary:
    """What an exploration gave and cost.

    `steps` counts the committed ones, `candidates_per_step` what was drawn for each of them;
    `rising` is the share of them that rise in the initial, middle and final third of their episodes
    (None where there is no step, or where the start was not estimated). `threshold_bias` says by
    how much the process rewards that served as thresholds from the second step on are too high on
    average: they were chosen for being high. Each is held against the first candidate drawn after
    it, which nothing chose (docs/grounding.md); None where there are none."""

    tasks: int
    steps: int
    candidates_per_step: float
    rising: tuple[float | None, ...]
    threshold_bias: float | None
    usage: Usage


def summarise(trees: Iterable[Tree]) -> ExplorationSummary:
    """Sum up finished trees, one at a time."""
    tasks, drawn, usage = 0, list[int](), Usage()
    rewards, starts, biases = list[list[float]](), list[float](), list[float]()
    for tree in trees:
        tasks += 1
        drawn += tree.candidates_per_step()
        usage += tree.usage()
        biases += _threshold_errors(tree)
        if tree.root.estimate is not None:
            starts.append(tree.root.estimate.mean)
            rewards.append([node.estimate.mean for node in tree.committed() if node.estimate])
    rising = tuple(stage.share for stage in rising_share_by_stage(rewards, starts))
    mean = sum(drawn) / len(drawn) if drawn else 0.0
    bias = sum(biases) / len(biases) if biases else None
    return ExplorationSummary(tasks, len(drawn), mean, rising, bias, usage)


def _threshold_errors(tree: Tree) -> Iterator[float]:
    """Each committed step's process reward minus that of the first candidate after it: on average
    the error of the former, as a candidate is worth what its state is worth on average."""
    for node in tree.committed():
        first = node.children[0] if node.children else None
        if first is None or first.recycled or first.action.source is Source.EXPERT:
            continue
        if node.estimate is not None and first.estimate is not None:
            yield gap(node.estimate, first.estimate)
