"""What a good pair costs: every strategy on random trees with known values (benchmarks/trees.py).

`python -m benchmarks.exploration [--seeds 20] [--tasks 8] [--out FILE.json] [--plot FILE.png]
[--only NAME ...] [--families held-back] [--work FOLDER]`

Strategies run through the real sampler, engine and journal; only the policy is a script. A pair is
correct if its chosen side is truly worth more than its rejected side, and counted once however
often it is found. Intervals are 95 %, over seeds, each with its own trees."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.exploration_plot import plot
from benchmarks.exploration_table import averages, table
from benchmarks.trees import HELD_BACK, LOOKED_AT, SHAPES, Forest, Shape
from rro.config import CreditConfig
from rro.episodes.loop import Limits
from rro.evaluation.statistics import task_mean
from rro.exploration import explorer
from rro.exploration.sampler import ExplorationContext
from rro.exploration.strategies.adaptive import AdaptiveExploration
from rro.exploration.strategies.base import Strategy, StrategyContext
from rro.exploration.strategies.eto import TrajectoryExploration
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.exploration.strategies.ipr import IterativeStepRefinement
from rro.exploration.strategies.rft import RejectionSampling
from rro.exploration.strategies.rising import RisingExploration
from rro.exploration.tree import Node, Tree
from rro.learning.credit.base import Credit, CreditContext
from rro.learning.credit.choosing import credit_of
from rro.runs.journal import Journal
from rro.runs.progress import Progress
from rro.types import PreferencePair, SamplingParams

FIRST_SEED = 1000  # those below served to choose the defaults of adaptive exploration


@dataclass(frozen=True)
class Explored:
    """A strategy, and the credit that makes pairs of its trees."""

    strategy: Strategy
    credit: Credit


Make = Callable[[Forest], Explored]


def strategies() -> dict[str, Make]:
    """What is compared, by name. The first one is the paper's procedure."""
    return {
        "rro": lambda forest: credited(forest, RisingExploration()),
        "rro, N = 1": lambda forest: rising(forest, 1),
        "rro, N = 3": lambda forest: rising(forest, 3),
        "rro, all pairs": lambda forest: rising(forest, 5, every=True),
        "rro, N = 1, all pairs": lambda forest: rising(forest, 1, every=True),
        "rro, N = 3, all pairs": lambda forest: rising(forest, 3, every=True),
        "rro, fresh threshold": lambda forest: credited(
            forest, RisingExploration(threshold="fresh")
        ),
        "adaptive": lambda forest: adaptive(forest),
        "adaptive, lowest sibling": lambda forest: adaptive(forest, siblings="lowest"),
        "adaptive, path only": lambda forest: adaptive(forest, off_path="no"),
        "adaptive, one pair a step": lambda forest: adaptive(
            forest, siblings="lowest", off_path="no"
        ),
        "adaptive, error 0.05": lambda forest: adaptive(forest, max_error=0.05),
        "adaptive, error 0.4": lambda forest: adaptive(forest, max_error=0.4),
        "adaptive, 3 draws": lambda forest: adaptive(forest, draws=3),
        "adaptive, 6 draws": lambda forest: adaptive(forest, draws=6),
        "adaptive, budget 20": lambda forest: adaptive(forest, budget=20),
        "no sharing": lambda forest: adaptive(forest, merge_equal=False),
        "fixed": lambda forest: credited(forest, FixedSizeExploration()),
        "ipr": lambda forest: credited(
            forest, IterativeStepRefinement(context=StrategyContext(experts(forest)))
        ),
        "eto": lambda forest: credited(forest, TrajectoryExploration()),
        "rft": lambda forest: credited(forest, RejectionSampling()),
    }


def rising(forest: Forest, rollouts: int, *, every: bool = False) -> Explored:
    """The paper's procedure with N rollouts a process reward; with `every`, as many pairs of its
    trees as adaptive exploration takes of its own."""
    section = {"siblings": "all", "off_path": "tree"} if every else {}
    return credited(forest, RisingExploration(rollouts=rollouts), **section)


def adaptive(
    forest: Forest,
    siblings: Literal["lowest", "all"] = "all",
    off_path: Literal["no", "tree"] = "tree",
    **options: Any,
) -> Explored:
    context = StrategyContext(reward_range=forest.shape.range)
    strategy = AdaptiveExploration(**options, context=context)
    return credited(forest, strategy, siblings=siblings, off_path=off_path)


def credited(forest: Forest, strategy: Strategy, **section: Any) -> Explored:
    """A strategy with its own credit; `section` is a recipe's `[credit]`."""
    low, high = forest.shape.range
    context = CreditContext(experts(forest), (low, high), high, strategy=strategy.name, iteration=1)
    return Explored(strategy, credit_of(strategy, context, CreditConfig(**section)))


def experts(forest: Forest) -> dict[str, Any]:
    return {task: forest.expert_episode(task) for task in forest.trees}


@dataclass
class Counts:
    """Sums over the tasks of one exploration."""

    tasks: int = 0
    calls: int = 0
    tokens: int = 0
    environment_steps: int = 0
    pairs: int = 0
    correct: int = 0
    net: int = 0  # correct pairs minus the others
    gap: float = 0.0  # true value of chosen minus that of rejected
    stated_gap: float = 0.0  # the same, as the pairs state it
    rises: int = 0  # committed steps that rose
    false_rises: int = 0  # those whose true value is not above that of the state before
    thresholds: int = 0  # process rewards that were held against a next step's
    excess: float = 0.0  # how far they lie above the true values
    early: int = 0  # pairs of the first half of the step limit
    start: float = 0.0  # V of the start
    end: float = 0.0  # V where the committed trajectory ends
    candidates: int = 0
    steps: int = 0
    claimed: float = 0.0  # credibility, over the pairs that state one
    values: list[list[float]] = field(
        default_factory=list
    )  # V after each committed step, start first, by task


def explore(forest: Forest, make: Make, seed: int, concurrency: int = 16) -> Counts:
    """One exploration of a forest, measured."""
    explored = make(forest)
    return count(forest, explored.credit, grow(forest, explored.strategy, seed, concurrency))


def grow(forest: Forest, strategy: Strategy, seed: int, concurrency: int = 16) -> dict[str, Tree]:
    """The finished trees by task."""
    policy, trees = forest.policy(), dict[str, Tree]()

    def keep(tree: Tree) -> None:
        trees[tree.task.id] = tree

    with (
        tempfile.TemporaryDirectory() as folder,
        Journal(Path(folder) / "journal.jsonl") as journal,
    ):
        params = SamplingParams()
        context = ExplorationContext(
            forest, policy, policy, journal, params, params, Limits(forest.max_steps), seed
        )
        with Progress("explore", len(forest.trees), "tasks", log_every=1e9) as progress:
            failed = asyncio.run(
                explorer.explore(forest.tasks(), strategy, context, concurrency, progress, keep)
            )
    assert not failed, failed
    return trees


def count(forest: Forest, credit: Credit, trees: dict[str, Tree]) -> Counts:
    """What a credit makes of finished trees, against the true values."""
    counts = Counts()
    credit = credit.fitted(tree for _, tree in sorted(trees.items()))
    for task, tree in sorted(trees.items()):
        _count(
            counts, forest, task, tree, list(credit.rows(tree)) if credit.gives == "pairs" else []
        )
    return counts


def _count(
    counts: Counts, forest: Forest, task: str, tree: Tree, pairs: list[PreferencePair]
) -> None:
    usage, committed, root = tree.usage(), tree.committed(), forest.trees[task]
    counts.tasks += 1
    counts.calls += usage.policy_calls
    counts.tokens += usage.generated_tokens
    counts.environment_steps += usage.environment_steps
    for pair in {(p.prompt, p.chosen, p.rejected): p for p in pairs}.values():
        gap = _gap(forest, pair)
        counts.pairs += 1
        counts.correct += gap > 1e-9
        counts.net += 1 if gap > 1e-9 else -1
        counts.gap += gap
        stated = pair.chosen_reward.mean - pair.rejected_reward.mean
        counts.stated_gap += stated if pair.gap is None else pair.gap
        counts.early += 2 * pair.step <= forest.shape.depth + 1
        counts.claimed += pair.credibility or 0.0
    values, place = [root.value], root
    for node in committed:
        place = place.by_text[node.action.content].leads_to
        counts.rises += node.rose
        counts.false_rises += node.rose and place.value <= values[-1] + 1e-9
        if node.stop is None and node.estimate is not None:
            counts.thresholds += 1
            counts.excess += _threshold(node) - place.value
        values.append(place.value)
    counts.values.append(values)
    counts.start += root.value
    counts.end += values[-1]
    counts.steps += len(committed)
    counts.candidates += sum(len(node.parent.children) for node in committed if node.parent)


def _threshold(node: Node) -> float:
    """What the step after a node was held against: its estimate, or the rollouts that were made for
    it afterwards."""
    assert node.estimate is not None
    fresh = [
        r.reward for n, r in node.rollouts.items() if n >= node.estimate.n and r.reward is not None
    ]
    return float(np.mean(fresh)) if fresh else node.estimate.mean


def _gap(forest: Forest, pair: PreferencePair) -> float:
    """True difference: of the actions that the sides begin with, or of two whole trajectories'
    outcomes."""
    if pair.kind == "trajectory":
        return pair.chosen_reward.mean - pair.rejected_reward.mean
    actions = forest.at(pair.prompt).by_text
    return (
        actions[pair.chosen[0].content].leads_to.value
        - actions[pair.rejected[0].content].leads_to.value
    )


# -- figures: ratios of sums over seeds, with intervals


def ratio(counts: Sequence[Counts], over: str, under: str) -> dict[str, float | None]:
    """sum(over) / sum(under), with an interval; null where there is nothing below."""
    return _interval(_sums(counts, over), _sums(counts, under))


def times_fewer(
    paper: Sequence[Counts], counts: Sequence[Counts], pairs: str = "correct"
) -> dict[str, float | None]:
    """By how many times the policy calls per correct pair (or per `net` pair: correct minus the
    others) are fewer than the paper's, on the same trees."""
    over, under = ((_sums(those, "calls"), _sums(those, pairs)) for those in (paper, counts))
    return _interval(over[0], over[1], under[1], under[0])


def _sums(counts: Sequence[Counts], name: str) -> Any:
    """By seed: the sum itself, then 4,000 resamples of seeds (the same for every strategy and
    figure)."""
    values = np.array([getattr(c, name) for c in counts], float)
    drawn = np.random.default_rng(0).integers(len(values), size=(4000, len(values)))
    return np.concatenate([[values.sum()], values[drawn].sum(1)])


def _interval(over: Any, under: Any, times: Any = 1.0, by: Any = 1.0) -> dict[str, float | None]:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = over / under * times / by
    if not np.isfinite(ratios[0]):
        return {"mean": None, "low": None, "high": None}
    low, high = np.quantile(ratios[1:][np.isfinite(ratios[1:])], [0.025, 0.975])
    return {"mean": float(ratios[0]), "low": float(low), "high": float(high)}


def figures(counts: Sequence[Counts]) -> dict[str, Any]:
    """What one strategy did on one shape, over seeds."""
    gained = {str(n): [(c.end - c.start) / c.tasks] for n, c in enumerate(counts)}
    return {
        "calls_per_task": ratio(counts, "calls", "tasks"),
        "calls_per_correct_pair": ratio(counts, "calls", "correct"),
        "calls_per_net_pair": ratio(counts, "calls", "net"),
        "tokens_per_task": ratio(counts, "tokens", "tasks"),
        "tokens_per_correct_pair": ratio(counts, "tokens", "correct"),
        "environment_steps_per_task": ratio(counts, "environment_steps", "tasks"),
        "environment_steps_per_correct_pair": ratio(counts, "environment_steps", "correct"),
        "pairs_per_task": ratio(counts, "pairs", "tasks"),
        "pair_accuracy": ratio(counts, "correct", "pairs"),
        "mean_true_gap": ratio(counts, "gap", "pairs"),
        "mean_stated_gap": ratio(counts, "stated_gap", "pairs"),
        "false_share_of_rises": ratio(counts, "false_rises", "rises"),
        "threshold_excess": ratio(counts, "excess", "thresholds"),
        "mean_credibility": ratio(counts, "claimed", "pairs"),
        "early_share_of_pairs": ratio(counts, "early", "pairs"),
        "candidates_per_step": ratio(counts, "candidates", "steps"),
        "end_value": ratio(counts, "end", "tasks"),
        "gain_in_value": task_mean(gained, 4000, 0).plain(),
        "value_after_step": _by_step(counts),
    }


def _by_step(counts: Sequence[Counts]) -> list[float]:
    """Mean true V after 0, 1, ... committed steps; an episode that has ended keeps its outcome."""
    walks = [walk for c in counts for walk in c.values]
    longest = max(map(len, walks))
    return [
        sum(walk[min(step, len(walk) - 1)] for walk in walks) / len(walks)
        for step in range(longest)
    ]


def _explore_all(job: tuple[Shape, list[str], int, int, Path | None]) -> list[Counts]:
    """Every strategy on the same trees; what the folder has already is not done again."""
    shape, names, tasks, seed, folder = job
    logging.disable(logging.WARNING)
    file = folder / f"{shape.name} {seed} {tasks}.json" if folder else None
    done = json.loads(file.read_text()) if file and file.exists() else {}
    if all(name in done for name in names):
        return [Counts(**done[name]) for name in names]
    forest = Forest(shape, tasks, seed)
    made = {name: strategies()[name](forest) for name in names}
    grown: list[tuple[Strategy, dict[str, Tree]]] = []
    for name in names:
        strategy = made[name].strategy
        # Which siblings are paired, and how credibly, does not change what is explored.
        key: Strategy = (
            replace(strategy, max_error=0.2)
            if isinstance(strategy, AdaptiveExploration)
            else strategy
        )
        if name not in done:
            trees = next((known for other, known in grown if other == key), None)
            if trees is None:
                trees = grow(forest, strategy, seed)
                grown.append((key, trees))
            done[name] = asdict(count(forest, made[name].credit, trees))
    if file:
        file.write_text(json.dumps(done))
    return [Counts(**done[name]) for name in names]


def measure(
    shapes: list[Shape],
    names: list[str],
    tasks: int,
    seeds: int,
    processes: int,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Figures by shape and strategy. With a folder, one that was cut off goes on."""
    all_seeds = range(FIRST_SEED, FIRST_SEED + seeds)
    jobs = [(shape, names, tasks, seed, folder) for seed in all_seeds for shape in shapes]
    with ProcessPoolExecutor(processes) as pool:
        done = list(pool.map(_explore_all, jobs))
    found: dict[str, Any] = {}
    for index, shape in enumerate(shapes):
        by_name = list(zip(*done[index :: len(shapes)], strict=True))
        found[shape.name] = {
            name: figures(list(counts)) for name, counts in zip(names, by_name, strict=True)
        }
        for name, counts in zip(names, by_name, strict=True):
            row = found[shape.name][name]
            row["times_fewer_calls"] = times_fewer(by_name[0], counts)
            row["times_fewer_calls_per_net_pair"] = times_fewer(by_name[0], counts, "net")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=8, help="trees per seed")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="strategies, by name")
    parser.add_argument("--shapes", nargs="*", help="shapes, by name")
    parser.add_argument("--families", choices=["looked-at", "held-back"], help="in place of SHAPES")
    parser.add_argument("--work", type=Path, help="a folder from which it goes on if cut off")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    families = {None: SHAPES, "looked-at": LOOKED_AT, "held-back": HELD_BACK}[options.families]
    shapes = [shape for shape in families if not options.shapes or shape.name in options.shapes]
    names = [name for name in strategies() if not options.only or name in options.only]
    if options.work:
        options.work.mkdir(parents=True, exist_ok=True)
    found = measure(shapes, names, options.tasks, options.seeds, options.processes, options.work)
    print(table(found))
    print(averages(found))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    if options.plot:
        plot(found, options.plot)


if __name__ == "__main__":
    main()
