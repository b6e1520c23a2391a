"""Many tasks at once: runs a strategy over tasks, journals each finished one, and sums up what it
cost.

A fixed number of workers take tasks from one queue, so what is in memory follows the concurrency,
not the number of tasks. One task's failure leaves the others running: that task is missing from the
pairs, and said so."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rro.codec import to_plain
from rro.errors import RroError, UsageError
from rro.exploration.budget import BudgetSpent
from rro.exploration.pairs import to_row
from rro.exploration.sampler import ContextFull, ExplorationContext, Sampler, TaskFailed
from rro.exploration.strategies.base import Strategy
from rro.exploration.tree import Node
from rro.exploration.trend import StageShare, rising_share_by_stage
from rro.runs.progress import Progress
from rro.types import Message, Source, Task, Usage

log = logging.getLogger(__name__)


async def explore(
    tasks: Sequence[Task],
    strategy: Strategy,
    context: ExplorationContext,
    concurrency: int,
    progress: Progress,
    observe: Callable[[dict[str, Any]], None] = lambda record: None,
) -> list[str]:
    """Explore every task that the journal does not hold already; returns the ids of those that
    failed. `observe` is told each task's record, old and new.

    Where the context's budget ends, tasks under way are recorded as far as they came, and the others
    are not begun.

    Raises every other RroError at once: an environment that does not restore makes all estimates
    wrong, a journal that cannot be written loses all work, and so on."""
    if twice := [
        task_id for task_id, count in Counter(task.id for task in tasks).items() if count > 1
    ]:
        raise UsageError(
            f"{len(twice)} task ids occur twice ({twice[0]!r} ...): give each task an id of its own"
        )
    queue, failed, pairs = iter(tasks), list[str](), 0

    async def worker() -> None:
        nonlocal pairs
        for task in queue:
            new = ("task", context.key(task)) not in context.journal
            try:
                record = await _record_of(task, strategy, context)
            except BudgetSpent:
                return
            if record is None:
                failed.append(task.id)
            else:
                pairs += len(record["pairs"])
                observe(record)
            share = context.budget.share()
            spent = "" if share is None else f", {share:.0%} of the budget"
            progress.advance(new=new, note=f"{pairs} pairs{spent}", spent=share or 0.0)

    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(concurrency, len(tasks))):
                workers.create_task(worker())
    except ExceptionGroup as group:
        raise group.exceptions[
            0
        ] from None  # the others were cancelled for it; their finished work is journalled
    return failed


async def _record_of(
    task: Task, strategy: Strategy, context: ExplorationContext
) -> dict[str, Any] | None:
    """The task's record, from the journal or new; None where it failed. Raises BudgetSpent and
    errors that end a run."""
    known = context.journal.get("task", context.key(task))
    if known is not None:
        return known
    try:
        record = await _explore_task(task, strategy, context)
    except BudgetSpent:
        raise
    except Exception as error:
        if isinstance(error, RroError) and not isinstance(error, TaskFailed):
            raise
        log.warning("task %s failed and is missing: %s: %s", task.id, type(error).__name__, error)
        log.debug("task %s", task.id, exc_info=error)
        return None
    context.journal.append("task", context.key(task), record)
    return record


async def _explore_task(
    task: Task, strategy: Strategy, context: ExplorationContext
) -> dict[str, Any]:
    """One task's record: the chosen trajectory, its estimates, pairs and cost (candidates and rollouts
    have their own records). `cut` says that the budget ended it. Raises BudgetSpent where it ended
    before anything was chosen."""
    begun, cut = time.perf_counter(), False
    sampler = Sampler(context, task)
    await sampler.start()
    try:
        await strategy.explore(sampler)
    except ContextFull:
        log.info("task %s: the context is full; its trajectory ends there", task.id)
    except BudgetSpent:
        cut = True
        if not sampler.tree.committed() and not sampler.tree.episodes:
            raise
    tree = sampler.tree
    return {
        "strategy": strategy.name,
        "cut": cut,
        "opening": [message.chat() for message in tree.root.opening],
        "start_reward": tree.root.estimate.mean if tree.root.estimate else None,
        "committed": [_committed(node) for node in tree.committed()],
        "candidates": [_drawn(node.parent) for node in tree.committed() if node.parent],
        "pairs": [to_row(pair) for pair in strategy.pairs(tree, context.iteration)],
        "demonstrations": [[_message(m) for m in turns] for turns in strategy.demonstrations(tree)],
        "usage": to_plain(tree.usage()),
        "usage_by_step": [to_plain(usage) for usage in tree.usage_by_step()],
        "seconds": time.perf_counter() - begun,
    }


def _committed(node: Node) -> dict[str, Any]:
    return {
        "node": node.id,
        "rose": node.rose,
        "process_reward": node.estimate.mean if node.estimate else None,
        "n": node.estimate.n if node.estimate else 0,
        "policy": node.estimate.policy if node.estimate else None,
        "outcome": node.reward,
    }


def _drawn(node: Node) -> int:
    return sum(child.action.source is not Source.EXPERT for child in node.children)


def _message(message: Message) -> dict[str, Any]:
    return {**message.chat(), "source": message.source.value, "token_ids": message.token_ids}


@dataclass(frozen=True)
class ExplorationSummary:
    """What an exploration gave and cost. `candidates_per_step` counts what was drawn for each
    committed step; `rising` is the share of committed steps that rise in the initial, middle and
    final third of their episodes (None where no step falls, or where the start was not estimated)."""

    tasks: int
    steps: int
    pairs: int
    demonstrations: int
    candidates_per_step: float
    rising: tuple[float | None, ...]
    usage: Usage


def summarise(records: Iterable[dict[str, Any]]) -> ExplorationSummary:
    """Sum up "task" records of one iteration, one at a time."""
    tasks = steps = pairs = demonstrations = candidates = 0
    usage, trend = Usage(), [StageShare(0, 0)] * 3
    for record in records:
        tasks += 1
        steps += len(record["candidates"])
        candidates += sum(record["candidates"])
        pairs += len(record["pairs"])
        demonstrations += len(record["demonstrations"])
        usage += Usage(**record["usage"])
        trend = [so_far + its for so_far, its in zip(trend, _trend(record), strict=True)]
    rising = tuple(stage.share for stage in trend)
    return ExplorationSummary(
        tasks, steps, pairs, demonstrations, candidates / steps if steps else 0.0, rising, usage
    )


def _trend(record: dict[str, Any]) -> tuple[StageShare, ...]:
    """The rising steps of the chosen trajectory by stage; nothing where the start was not
    estimated."""
    if record["start_reward"] is None:
        return (StageShare(0, 0),) * 3
    rewards = [
        step["process_reward"] for step in record["committed"] if step["process_reward"] is not None
    ]
    return rising_share_by_stage([rewards], [record["start_reward"]])
