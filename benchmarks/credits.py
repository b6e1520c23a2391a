"""What a credit is worth where the truth is known: `python -m benchmarks.credits [--seeds 2]
[--tasks 4] [--repeats 16] [--out FILE.json]`.

On random trees whose values are known (benchmarks/trees.py) each credit says how much better an
action is than what the policy does on average in its state; exactly that is A(h, a) = Q(h, a) -
V(h). Each forest is explored `--repeats` times. Per credit, over all actions that were drawn:

- `credited`: share of them with a credit other than 0,
- `bias`: root mean square of the mean error of an action, corrected for the noise of that mean,
- `deviation`: root mean square of the standard deviation of an action's credit,
- `correlation` with the exact advantage, and `sign`: how often the sign is right, where both have
  one, over the credited actions.

Advantages are those without division by a deviation, as only they have the size of a reward. Labels
count as +1 and -1 and have neither bias nor deviation. `calls` are the policy's, per
task. Figures are means over shapes and seeds."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.exploration import FIRST_SEED, grow
from benchmarks.trees import SHAPES, Forest
from rro.exploration.strategies.base import Strategy
from rro.exploration.strategies.group import Group
from rro.exploration.strategies.rising import RisingExploration
from rro.exploration.tree import Tree
from rro.learning.credit.anchor_advantages import AnchorAdvantages
from rro.learning.credit.base import Credit
from rro.learning.credit.group_advantages import GroupAdvantages
from rro.learning.credit.rising_advantages import RisingAdvantages
from rro.learning.credit.step_labels import StepLabels
from rro.learning.credit.tree_advantages import TreeAdvantages
from rro.types import Message, Source

NAMES = ("peaked, binary", "flat, binary", "flat, graded", "shallow", "deep", "mostly zero")
STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "8 episodes": lambda: Group(episodes=8),
    "4 episodes, 3 waves of forks": lambda: Group(episodes=4, waves=3),
    "16 episodes": lambda: Group(episodes=16),
    "rro": lambda: RisingExploration(3, 3),
}
GROUPS = ("8 episodes", "4 episodes, 3 waves of forks", "16 episodes")
CREDITS: dict[str, tuple[Credit, Sequence[str]]] = {
    "group_advantages": (GroupAdvantages(scale="none"), GROUPS),
    "anchor_advantages": (AnchorAdvantages(scale="none"), GROUPS),
    "tree_advantages, no shrinking": (TreeAdvantages(shrink=0.0), tuple(STRATEGIES)),
    "tree_advantages": (TreeAdvantages(), tuple(STRATEGIES)),
    "rising_advantages": (RisingAdvantages(), ("rro",)),
    "step_labels": (StepLabels(), tuple(STRATEGIES)),
    "step_labels, 3 outcomes or more": (StepLabels(min_outcomes=3), tuple(STRATEGIES)),
    "step_labels, candidates alone": (StepLabels(rollouts=False), ("rro",)),
}
"""The credits and the strategies on whose trees they are measured."""

Place = tuple[str, str, str]
"""A task, a place on its tree and an action there."""


@dataclass
class Given:
    """What a credit gave on one forest: per action, each credit and the exact advantage; and how
    many actions were drawn."""

    credits: dict[Place, list[float]] = field(default_factory=lambda: defaultdict(list))
    exact: dict[Place, float] = field(default_factory=dict)
    credited: int = 0
    drawn: int = 0

    def add(self, forest: Forest, credit: Credit, tree: Tree) -> None:
        """Take in what the credit gives on one tree."""
        self.drawn += sum(1 for _ in drawn(tree))
        for history, action, value in given(credit, tree):
            place = forest.at(history)
            taken = place.by_text[action.content]
            key = (tree.task.id, place.name, action.content)
            self.exact[key] = taken.leads_to.value - place.value
            self.credits[key].append(value)
            self.credited += value != 0

    def figures(self, labels: bool) -> dict[str, float | None]:
        """The measures of this module's docstring."""
        pairs = [(v, self.exact[key]) for key, values in self.credits.items() for v in values]
        values, exact = (np.array(column) for column in zip(*pairs, strict=True))
        bias, deviation = (None, None) if labels else self._errors()
        telling = (values != 0) & (abs(exact) > 1e-9)
        return {
            "credited": self.credited / self.drawn,
            "bias": bias,
            "deviation": deviation,
            "correlation": float(np.corrcoef(values, exact)[0, 1]),
            "sign": float((np.sign(values) == np.sign(exact))[telling].mean()),
        }

    def _errors(self) -> tuple[float, float]:
        """Bias and deviation over the actions with two credits or more, by how often they were
        drawn."""
        squared = variance = weight = 0.0
        for key, values in self.credits.items():
            if (n := len(values)) > 1:
                spread = float(np.var(values, ddof=1))
                error = float(np.mean(values)) - self.exact[key]
                squared += n * (error**2 - spread / n)
                variance, weight = variance + n * spread, weight + n
        return max(squared / weight, 0.0) ** 0.5, (variance / weight) ** 0.5


def given(credit: Credit, tree: Tree) -> Iterator[tuple[Sequence[Message], Message, float]]:
    """(history, action, credit) of each action with one."""
    for row in credit.rows(tree):
        if credit.gives == "labels":
            yield row.prompt, row.action, 1.0 if row.label else -1.0
            continue
        for number, advantage in enumerate(row.advantages):
            if advantage is not None:
                yield row.messages[:number], row.messages[number], advantage


def drawn(tree: Tree) -> Iterator[Message]:
    """Every action that the policy drew."""
    for node in tree.root.walk():
        if node.step is not None and not node.recycled and node.action.source is Source.POLICY:
            yield node.action
        for rollout in node.rollouts.values():
            yield from (step.action for step in rollout.steps)


def measure(shape: int, seed: int, tasks: int, repeats: int) -> list[dict[str, Any]]:
    """The figures of every credit on one forest."""
    forest, rows = Forest(SHAPES[shape], tasks, seed), []
    for strategy, make in STRATEGIES.items():
        grown = [grow(forest, make(), seed * 1000 + repeat) for repeat in range(repeats)]
        trees = [tree for trees in grown for tree in trees.values()]
        calls = sum(tree.usage().policy_calls for tree in trees) / len(trees)
        for name, (credit, strategies) in CREDITS.items():
            if strategy in strategies:
                known = Given()
                for tree in trees:
                    known.add(forest, credit, tree)
                figures = {"calls": calls, **known.figures(credit.gives == "labels")}
                rows.append(
                    {"shape": forest.shape.name, "strategy": strategy, "credit": name} | figures
                )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over shapes and seeds."""
    groups = defaultdict[tuple[str, str], list[dict[str, Any]]](list)
    for row in rows:
        groups[row["strategy"], row["credit"]].append(row)
    return [
        {"strategy": strategy, "credit": credit}
        | {
            name: round(float(np.mean([row[name] for row in group])), 3)
            for name in ("calls", "credited", "bias", "deviation", "correlation", "sign")
            if group[0][name] is not None
        }
        for (strategy, credit), group in groups.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=4, help="trees of a forest")
    parser.add_argument("--repeats", type=int, default=16, help="explorations of a forest")
    parser.add_argument("--out", type=Path, help="also write all rows as JSON")
    arguments = parser.parse_args()
    shapes = [number for number, shape in enumerate(SHAPES) if shape.name in NAMES]
    jobs = [(shape, FIRST_SEED + seed) for seed in range(arguments.seeds) for shape in shapes]
    size = (arguments.tasks, arguments.repeats)
    with ProcessPoolExecutor() as pool:
        waiting = [pool.submit(measure, *job, *size) for job in jobs]
        rows = [row for job in waiting for row in job.result()]
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    for row in table(rows):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
