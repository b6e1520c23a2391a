"""What pairs beside the committed path bring (`credit.off_path`), on random trees whose values are
known (benchmarks/trees.py): the same explorations, so the same policy calls, with more pairs.

`python -m benchmarks.off_path [--seeds 6] [--tasks 4] [--shapes NAME ...]`

Prints, for each strategy and setting, pairs and correct pairs of a task, accuracy, the true gap,
calls per correct pair, and by how many times these calls are fewer than without: over all shapes,
with the range over seeds, each with trees of its own, and the range over shapes.

`python -m benchmarks.off_path --run RUN`

Counts on the trees of a run whose credit is `credible_pairs` (first round): pairs, and their mean
credibility, of all and of those beside the path."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from statistics import fmean

from benchmarks.exploration import FIRST_SEED, Counts, count, credited, grow
from benchmarks.trees import SHAPES, Forest, Shape
from rro.config import CreditConfig
from rro.exploration.strategies.adaptive import AdaptiveExploration
from rro.exploration.strategies.base import Strategy, StrategyContext
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.exploration.strategies.rising import RisingExploration
from rro.learning.credit.choosing import credit_of
from rro.pipeline.choices import Choices
from rro.pipeline.explored import explored_trees
from rro.pipeline.run import open_run
from rro.runs.folder import RunFolder

SETTINGS = ("no", "siblings", "tree")
HEAD = (
    f"{'strategy':9} {'off_path':9} {'pairs':>6} {'correct':>8} {'accuracy':>9} {'gap':>6} "
    f"{'calls/correct':>14} {'fewer':>6} {'by seed':>12} {'by shape':>12}"
)

Cell = tuple[str, str, str, int]
"""Strategy, setting, shape, seed."""


def strategies(shape: Shape) -> list[Strategy]:
    context = StrategyContext(reward_range=shape.range)
    return [RisingExploration(), FixedSizeExploration(), AdaptiveExploration(context=context)]


def measure(job: tuple[Shape, int, int]) -> dict[Cell, Counts]:
    """Every strategy and setting on the trees of one shape and seed."""
    shape, tasks, seed = job
    logging.disable(logging.WARNING)
    forest, found = Forest(shape, tasks, seed), dict[Cell, Counts]()
    for strategy in strategies(shape):
        trees = grow(forest, strategy, seed)
        for setting in SETTINGS:
            credit = credited(forest, strategy, off_path=setting).credit
            found[strategy.name, setting, shape.name, seed] = count(forest, credit, trees)
    return found


def row(found: dict[Cell, Counts], strategy: str, setting: str) -> str:
    """A line of the table."""

    def total(name: str, setting: str = setting, part: str | int | None = None) -> float:
        cells = found.items()
        return sum(
            float(getattr(counts, name))
            for cell, counts in cells
            if cell[:2] == (strategy, setting) and part in (None, *cell[2:])
        )

    def fewer(part: str | int | None = None) -> float:
        return total("correct", part=part) / max(1.0, total("correct", "no", part))

    def spread(parts: Iterable[str | int]) -> str:
        values = [fewer(part) for part in parts]
        return f"{min(values):.2f}-{max(values):.2f}"

    pairs, correct, tasks = (total(name) for name in ("pairs", "correct", "tasks"))
    by_seed, by_shape = (spread({cell[place] for cell in found}) for place in (3, 2))
    return (
        f"{strategy:9} {setting:9} {pairs / tasks:6.2f} {correct / tasks:8.2f} "
        f"{correct / pairs:9.3f} {total('gap') / pairs:6.3f} {total('calls') / correct:14.1f} "
        f"{fewer():6.2f} {by_seed:>12} {by_shape:>12}"
    )


def print_run(path: Path) -> None:
    """A line for each setting, on the trees that a run has grown."""
    print(f"{'siblings':9} {'off_path':9} {'pairs':>6} {'credibility':>12} {'beside':>7}")
    with open_run(RunFolder.open(path)) as run:
        choices = Choices(run)
        for siblings, setting in product(("lowest", "all"), SETTINGS):
            options = {"siblings": siblings, "off_path": setting}
            section = CreditConfig(name="credible_pairs", options=options)
            credit = credit_of(choices.strategy, choices.credit_context(1), section)
            credit = credit.fitted(explored_trees(run, choices, 1))
            pairs = [pair for tree in explored_trees(run, choices, 1) for pair in credit.rows(tree)]
            every = [pair.credibility for pair in pairs]
            beside = [pair.credibility for pair in pairs if not pair.committed]
            means = (f"{fmean(each):.3f}" if each else "" for each in (every, beside))
            print(f"{siblings:9} {setting:9} {len(pairs):6} {next(means):>12} {next(means):>7}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--tasks", type=int, default=4, help="trees per seed and shape")
    parser.add_argument("--shapes", nargs="*", help="shapes, by name")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--run", type=Path, help="a run folder, instead of trees")
    options = parser.parse_args()
    if options.run is not None:
        return print_run(options.run)
    shapes = [shape for shape in SHAPES if not options.shapes or shape.name in options.shapes]
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    jobs = [(shape, options.tasks, seed) for seed in seeds for shape in shapes]
    found = dict[Cell, Counts]()
    with ProcessPoolExecutor(options.processes) as pool:
        for cells in pool.map(measure, jobs):
            found |= cells
    print(HEAD)
    for strategy in strategies(shapes[0]):
        for setting in SETTINGS:
            print(row(found, strategy.name, setting))


if __name__ == "__main__":
    main()
