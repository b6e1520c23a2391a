"""Plays gold paths twice, in two engines, and compares every answer: `rro verify scienceworld`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rro.runs.progress import Progress
from rro.scienceworld import ScienceWorldBenchmark, ScienceWorldOptions
from rro.scienceworld.engine import Answer, Engine, Start


@dataclass
class Counts:
    """How many episodes and steps were played twice, and how many answered alike: text, score, end
    and number of moves. `solved` are the gold paths that reach the full score at all, `in_limit`
    those that do so within the limit of moves."""

    episodes: int = 0
    episodes_equal: int = 0
    steps: int = 0
    steps_equal: int = 0
    solved: int = 0
    in_limit: int = 0


def verify(options: ScienceWorldOptions, episodes: int, split: str = "train") -> Counts:
    """Play the gold paths of the first `episodes` tasks of a split in one engine, and again in
    another that has played nothing but these; returns `Counts`."""
    benchmark, counts = ScienceWorldBenchmark(options), Counts()
    tasks = benchmark.tasks(split)[:episodes]
    first, second = Engine(options.timeout), Engine(options.timeout)
    try:
        with Progress("replaying gold paths", len(tasks), "episodes") as progress:
            for task in tasks:
                place = (*task.data, options.simplifications)
                path = first.gold(*place)
                trace, again = (_trace(engine, place, path) for engine in (first, second))
                _count(counts, trace, again, options.move_limit)
                progress.advance()
    finally:
        first.kill()
        second.kill()
    return counts


def run_verify(options: ScienceWorldOptions, episodes: int, split: str = "train") -> bool:
    """Run `verify` and print its counts as one line of JSON. True if every answer was equal."""
    counts = verify(options, episodes, split)
    print(json.dumps(asdict(counts)))
    return counts.steps == counts.steps_equal and counts.episodes == counts.episodes_equal


def _trace(
    engine: Engine, place: tuple[str, int, str], path: Sequence[str]
) -> tuple[Start, list[Answer]]:
    start, answers = engine.load(*place), list[Answer]()
    for action in path:
        answers.append(engine.step(action))
        if answers[-1].completed:
            break
    return start, answers


def _count(
    counts: Counts,
    one: tuple[Start, list[Answer]],
    other: tuple[Start, list[Answer]],
    move_limit: int,
) -> None:
    answers = one[1]
    counts.episodes += 1
    counts.episodes_equal += one == other
    counts.steps += len(answers)
    counts.steps_equal += sum(a == b for a, b in zip(answers, other[1], strict=False))
    solved = bool(answers) and answers[-1].score >= 1
    counts.solved += solved
    # The action that exceeds the limit still counts, as in the Python package.
    counts.in_limit += solved and all(answer.moves <= move_limit for answer in answers[:-1])
