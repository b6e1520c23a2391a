"""What a process reward model saves: how well it tells siblings apart on tasks that it did not
learn from, alone and mixed with rollouts, against rollouts alone.

    python -m benchmarks.reward_model RUN [RUN ...]

Each run has explored with single actions estimated (`rro`, `fixed`). Two siblings are ordered by
their first n outcomes, by the model, or by both; how much better the one that was preferred is, is
judged by their other outcomes, which nothing was chosen by. So the means are unbiased, however
noisy one judgement is. With `--weights`, models of which all weights are trained are measured in
the same way, by epochs and learning rate."""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import fmean

import torch
from scipy.stats import mannwhitneyu

from rro.evaluation.statistics import Interval, task_mean
from rro.learning.credit.base import CreditContext
from rro.learning.credit.step_labels import StepLabels
from rro.learning.reward_model import (
    FOLDS,
    Head,
    Learning,
    Text,
    Worth,
    calibrate,
    features_of,
    labels_of,
    text_of,
    train_head,
)
from rro.learning.reward_model_trainer import FineTuning, held_out_scores
from rro.models.process_rewards import ProcessRewardModel, Scale
from rro.pipeline.choices import Choices
from rro.pipeline.explored import explored_trees
from rro.pipeline.run import open_run
from rro.pipeline.weights import weights_after
from rro.runs.folder import RunFolder
from rro.types import StepLabel

LABELS = (("mc", 0.0), ("td", 1.0), ("td", 0.9), ("td", 0.5))
OUTCOMES = 3
"""Of each candidate; at least so many are needed to judge."""


@dataclass(frozen=True)
class Read:
    """What a run explored: the labels of its trees with their features, and its candidates."""

    learning: Learning
    make: Callable[[], ProcessRewardModel]
    success: float
    candidates: list[StepLabel]
    tokens: dict[str, int]


def read(path: Path) -> Read:
    """A run's trees, and what the head sees of their actions."""
    with open_run(RunFolder.open(path)) as run:
        choices = Choices(run)
        context: CreditContext = choices.credit_context(1)
        trees = list(explored_trees(run, choices, 1))
        make = partial(ProcessRewardModel.on, run.config.model, weights_after(run, 0))
    found = labels_of(trees, context)
    credit = StepLabels(label="success", rollouts=False, context=context)
    candidates = [row for tree in trees for row in credit.rows(tree)]
    tokens = {"start": 0, "candidates": 0, "rollouts": 0}
    for tree in trees:
        for node in tree.root.walk():
            spent = sum(run.usage.generated_tokens for run in node.rollouts.values())
            tokens["start" if node.parent is None else "rollouts"] += spent
            tokens["candidates"] += node.cost.generated_tokens
    learning = Learning(found, features_of(make(), found.actions))
    return Read(learning, make, context.success_reward, candidates, tokens)


def held_out(learning: Learning, kind: str, trust: float) -> tuple[dict[Text, float], Scale]:
    """What the model says of every action, by a head that did not learn from its task; and the
    scale of the one that did from all."""
    trained = train_head(learning, kind, trust)  # type: ignore[arg-type]
    said: dict[Text, float] = {}
    for fold in learning.folds(FOLDS, 0):
        others = set(learning.tasks) - set(fold)
        head: Head = learning.fit(others, kind, trust, trained.penalty)  # type: ignore[arg-type]
        own = [t for t, action in learning.labels.actions.items() if action.task in set(fold)]
        said |= dict(zip(own, learning.values(head, own, trained.scale), strict=True))
    show_worth(f"{kind:3} lambda {trust:3}", trained.worth)
    return said, trained.scale


def show_worth(name: str, worth: Worth) -> None:
    """One line: errors, and how far off the tenths of the predictions are."""
    off = sum(abs(predicted - seen) * count for predicted, seen, count in worth.bins)
    print(
        f"{name}: error {worth.error:.4f}, of a constant {worth.spread:.4f}, noise of an outcome "
        f"{worth.noise:.4f}: worth {worth.outcomes:.2f} outcomes ({worth.actions} actions), off by "
        f"{off / worth.actions:.4f}",
        flush=True,
    )


def held_out_all_weights(found: Read, tuning: FineTuning) -> tuple[dict[Text, float], Scale]:
    """The same by models of which all weights are trained."""
    labels = found.learning.labels
    numbers = held_out_scores(found.make, labels, tuning)
    measured = Learning(labels, numbers)
    same = Head(torch.ones(1), 0.0)
    heads = dict.fromkeys(measured.tasks, same)
    scale, worth = calibrate(measured, measured.folds(FOLDS, 0), heads)
    texts = list(numbers)
    said = dict(zip(texts, measured.values(same, texts, scale), strict=True))
    show_worth(f"all weights, {tuning.epochs:g} epochs, rate {tuning.learning_rate:g}", worth)
    return said, scale


def auc(found: Read, said: dict[Text, float]) -> float:
    """How often an action that a success followed has the higher number than one that a failure
    followed, by the outcomes of actions that have several."""
    successes, failures = list[float](), list[float]()
    for text, action in found.learning.labels.actions.items():
        if not action.exact and len(action.outcomes) > 1:
            for outcome in action.outcomes:
                (successes if outcome >= found.success else failures).append(said[text])
    statistic = mannwhitneyu(successes, failures).statistic
    return float(statistic) / (len(successes) * len(failures))


def siblings(candidates: Sequence[StepLabel]) -> Iterator[tuple[StepLabel, StepLabel]]:
    """Pairs of candidates of one state that say different things, at least one of them open."""
    by_state = defaultdict[Text, list[StepLabel]](list)
    for row in candidates:
        if row.reward.exact or row.reward.n >= OUTCOMES:
            by_state[text_of(row.prompt)].append(row)
    for group in by_state.values():
        for one, two in combinations(group, 2):
            if not (one.reward.exact and two.reward.exact):
                yield one, two


def estimate(row: StepLabel, n: int, said: dict[Text, float] | None, weight: float) -> float:
    """By the first n outcomes, by the model, or by both."""
    if row.reward.exact:
        return row.reward.mean
    total, count = sum(row.reward.outcomes[:n]), float(n)
    if said is not None:
        total += weight * said[text_of((*row.prompt, row.action))]
        count += weight
    return total / count


def judged(row: StepLabel, n: int) -> float:
    """By the outcomes after the first n."""
    return row.reward.mean if row.reward.exact else fmean(row.reward.outcomes[n:])


def gain(
    candidates: Sequence[StepLabel], n: int, said: dict[Text, float] | None, weight: float
) -> tuple[Interval, float]:
    """How much better the preferred sibling is on average, by task; and in how many pairs one is
    preferred."""
    gains, decided = defaultdict[str, list[float]](list), 0
    for one, two in siblings(candidates):
        difference = estimate(one, n, said, weight) - estimate(two, n, said, weight)
        sign = (difference > 1e-9) - (difference < -1e-9)
        decided += abs(sign)
        gains[one.task].append(sign * (judged(one, n) - judged(two, n)))
    pairs = sum(len(values) for values in gains.values())
    return task_mean(gains, 10_000, 0), decided / pairs


def main() -> None:
    """Print the figures of each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--weights", nargs="*", default=[], metavar="EPOCHS,RATE")
    torch.set_num_threads(1)
    options = parser.parse_args()
    tunings = [FineTuning(*map(float, words.split(","))) for words in options.weights]
    for path in options.runs:
        found = read(path)
        print(f"{path.name}: generated tokens {found.tokens}", flush=True)
        for n in range(1, OUTCOMES):
            show(f"{n} outcomes", gain(found.candidates, n, None, 0.0))
        for kind, trust in LABELS:
            show_model(found, *held_out(found.learning, kind, trust))
        for tuning in tunings:
            show_model(found, *held_out_all_weights(found, tuning))


def show_model(found: Read, said: dict[Text, float], scale: Scale) -> None:
    """What a model is worth beside 0, 1 and 2 outcomes."""
    print(f"  area under the curve of successes {auc(found, said):.3f}", flush=True)
    show("model alone", gain(found.candidates, 0, said, 1.0))
    for n in range(1, OUTCOMES):
        show(f"model and {n}", gain(found.candidates, n, said, scale.weight))


def show(name: str, figures: tuple[Interval, float]) -> None:
    """One line."""
    mean, decided = figures
    print(
        f"  {name:14} gain {mean.mean:.4f} ({mean.low:.4f} to {mean.high:.4f}), "
        f"{decided:.0%} of pairs ordered",
        flush=True,
    )


if __name__ == "__main__":
    main()
