"""Rounds of exploration and optimisation: which tasks each explores, which weights come out of it,
and which checkpoints stay.

A round whose trees taught nothing leaves the weights unchanged. Runs no stage itself."""

from __future__ import annotations

import logging
import random
import shutil
from collections.abc import Iterator, Sequence

from rro.errors import counted
from rro.pipeline.contexts import spent
from rro.pipeline.run import Run
from rro.seeds import derive_seed
from rro.types import Task

log = logging.getLogger(__name__)

CLOSING = "closing"
"""Name of the closing pass: its stage, its metrics, and the end of its label."""


def tasks_of_round(tasks: Sequence[Task], number: int, per_round: int, seed: int) -> list[Task]:
    """The tasks of round `number`, counted from 1, where each round takes new ones: `per_round` of
    them in order; when they are used up, again in an order drawn from `seed`. What is left over at
    the end of such a pass waits for the next one."""
    rounds = max(1, len(tasks) // per_round)
    which, place = divmod(number - 1, rounds)
    order = list(tasks)
    if which:
        random.Random(derive_seed(seed, "tasks", which)).shuffle(order)
    return order[place * per_round : (place + 1) * per_round]


def tasks_to_explore(run: Run, tasks: Sequence[Task], number: int) -> list[Task]:
    """The tasks that the recipe says for a round, of those that can be explored."""
    per_round = run.config.explore.tasks or len(tasks)
    if run.config.rounds.tasks == "same":
        number = 1
    return tasks_of_round(tasks, number, per_round, run.config.seed)


def optimise_stage(number: int) -> str:
    """What the journal calls the optimisation of a round."""
    return f"optimise-{number}"


def taught(run: Run, number: int) -> int:
    """The last round up to `number` that changed the weights; 0: none."""
    while number and skipped(run, optimise_stage(number)):
        number -= 1
    return number


def skipped(run: Run, stage: str) -> bool:
    """Whether a stage is done, but had nothing to learn from."""
    return bool((run.journal.get("stage", stage) or {}).get("skipped"))


def rounds_to_run(run: Run) -> Iterator[int]:
    """The numbers of the rounds, as long as the recipe's tokens last."""
    limit, generated = run.config.rounds.generated_tokens, 0
    for number in range(1, run.config.rounds.count + 1):
        if limit is not None and generated >= limit:
            done = counted(number - 1, "rounds")
            log.info("%s generated %d tokens: no other begins", done, generated)
            return
        yield number
        generated += spent(run, number).generated_tokens


def rounds_done(run: Run) -> list[int]:
    """The numbers of the finished rounds."""
    numbers = range(1, run.config.rounds.count + 1)
    return [number for number in numbers if run.is_done(optimise_stage(number))]


def is_evaluated(run: Run, number: int) -> bool:
    """Whether the policy after a round is evaluated: that of every k-th round and of the last."""
    rounds = run.config.rounds
    return number % rounds.evaluate_every == 0 or number == rounds.count


def labels_to_evaluate(run: Run) -> list[str]:
    """The policy that the run starts from, those after the finished rounds that are evaluated, and
    that of the closing pass, each set of weights once."""
    done = rounds_done(run)
    numbers = [0, *(taught(run, n) for n in done if is_evaluated(run, n) or n == done[-1])]
    labels = [run.label(number) for number in numbers]
    return list(dict.fromkeys([*labels, last_label(run)]))


def last_label(run: Run) -> str:
    """The label of the run's last policy: that of the closing pass, or else of the last round that
    changed the weights."""
    if run.is_done(CLOSING) and not skipped(run, CLOSING):
        return closing_label(run)
    return run.label(taught(run, max([0, *rounds_done(run)])))


def closing_label(run: Run) -> str:
    """The label of the policy after the closing pass."""
    return f"{run.folder.trained(rounds_done(run)[-1])}-{CLOSING}"


def drop_old_checkpoints(run: Run, number: int) -> None:
    """After round `number`, remove the checkpoints of earlier rounds that are neither evaluated nor
    needed to go on from."""
    needed = {taught(run, number), taught(run, max(0, number - 1))}
    kept = {taught(run, n) for n in range(1, number) if is_evaluated(run, n)}
    for earlier in range(1, number):
        folder = run.folder.checkpoint(run.folder.trained(earlier))
        if earlier not in needed | kept and folder.is_dir():
            shutil.rmtree(folder)
            log.debug("removed the checkpoint of round %d", earlier)
