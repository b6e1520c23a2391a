"""From trees to a process reward model: labels, the fit of its head, and what it is worth on tasks
that it did not see.

Two ways to make labels: the Monte-Carlo process rewards of the trees (Math-Shepherd, arXiv
2312.08935), or lambda-returns over single rollouts, which lean on the model's own values
(TD with generalised advantages, AgentPRM, arXiv 2511.08325). The policy's own weights stay as they
are: features are computed once, and the head alone is fitted (`reward_model_trainer` trains all
weights)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import variance
from typing import Any, Literal

import torch
from torch import Tensor

from rro.errors import DataError, counted
from rro.exploration.tree import Tree
from rro.exploration.visits import played_rollouts
from rro.learning.credit.base import CreditContext
from rro.learning.credit.step_labels import StepLabels
from rro.models.process_rewards import ProcessRewardModel, Scale
from rro.seeds import derive_seed
from rro.types import Message

Text = tuple[str, ...]
"""A history and its last action, as texts."""
PENALTIES = (1e-4, 1e-3, 1e-2)
"""Of the head's squared weights; chosen by cross-validation over tasks."""
SWEEPS = 5
"""How often lambda-returns are computed anew."""
FOLDS = 4


@dataclass(frozen=True)
class Action:
    """An action of a tree: its conversation, the outcomes seen after it, and whether it ended the
    episode."""

    messages: tuple[Message, ...]
    task: str
    outcomes: tuple[float, ...]
    exact: bool

    @property
    def mean(self) -> float:
        """Of the outcomes."""
        return sum(self.outcomes) / len(self.outcomes)


@dataclass(frozen=True)
class Rollout:
    """The actions that one rollout took, and how it ended."""

    actions: tuple[Text, ...]
    outcome: float


@dataclass(frozen=True)
class Labels:
    """What the trees of an exploration say of actions."""

    actions: Mapping[Text, Action]
    rollouts: tuple[Rollout, ...]
    bounds: tuple[float, float]


@dataclass(frozen=True)
class Worth:
    """What a process reward model is worth on tasks that it did not learn from.

    `error`: its mean squared error without the noise of the outcomes that it is held against;
    `spread`: the variance of the values themselves, the error of one constant; `noise`: the
    variance of one outcome after an action; `outcomes`: how many outcomes have the same error.
    `bins`: predicted and seen means, by tenths of the predictions; `actions`, `tasks`: how many."""

    error: float
    spread: float
    noise: float
    actions: int
    tasks: int
    bins: tuple[tuple[float, float, int], ...]

    @property
    def outcomes(self) -> float:
        """How many outcomes have the same error."""
        return self.noise / self.error if self.error > 0 else float("inf")


def text_of(messages: Sequence[Message]) -> Text:
    """The texts by which an action is known."""
    return tuple(message.text for message in messages)


def labels_of(trees: Iterable[Tree], context: CreditContext) -> Labels:
    """The actions and rollouts of trees. Raises DataError where there are none, or every outcome is
    the same."""
    credit, actions, rollouts = StepLabels(label="success", context=context), {}, list[Rollout]()
    for tree in trees:
        for row in credit.rows(tree):
            messages = (*row.prompt, row.action)
            reward = row.reward
            actions[text_of(messages)] = Action(messages, row.task, reward.outcomes, reward.exact)
        for played in played_rollouts(tree):
            taken, texts = list[Text](), text_of(played.node.history())
            for step in played.steps:
                texts = (*texts, step.action.text)
                taken.append(texts)
                texts += text_of(step.replies())
            rollouts.append(Rollout(tuple(taken), played.outcome))
    if not actions:
        raise DataError("the trees have no action with an outcome: explore with rollouts first")
    outcomes = {outcome for action in actions.values() for outcome in action.outcomes}
    if len(outcomes) == 1:
        raise DataError(
            f"every outcome is {outcomes.pop():g}: a process reward model has nothing to learn from"
        )
    return Labels(actions, tuple(rollouts), context.reward_range)


def conversations(
    actions: Mapping[Text, Action],
) -> Iterator[tuple[tuple[Message, ...], list[Text | None]]]:
    """The fewest conversations that hold all actions, the longest first; with each, the actions
    that its assistant messages are, None for those that have no label or came before."""
    seen = set[Text]()
    for action in sorted(actions.values(), key=lambda one: -len(one.messages)):
        if text_of(action.messages) in seen:
            continue
        own = list[Text | None]()
        for number, message in enumerate(action.messages):
            if message.role == "assistant":
                text = text_of(action.messages[: number + 1])
                own.append(text if text in actions and text not in seen else None)
        seen.update(text for text in own if text is not None)
        yield action.messages, own


def features_of(model: ProcessRewardModel, actions: Mapping[Text, Action]) -> dict[Text, Tensor]:
    """What the head sees of each action. One forward pass serves all actions of a conversation."""
    return {
        text: row
        for messages, texts in conversations(actions)
        for text, row in zip(texts, model.features(messages), strict=True)
        if text is not None
    }


@dataclass(frozen=True)
class Head:
    """A fitted head: x -> weight . x + bias, whose sigmoid is the value within its bounds."""

    weight: Tensor
    bias: float

    def scores(self, features: Tensor) -> Tensor:
        """One number for each row of features."""
        return features @ self.weight + self.bias

    def put_into(self, layer: Any) -> None:
        """Make it the weights of a linear layer with one output."""
        with torch.no_grad():
            layer.weight.copy_(self.weight[None, :])
            layer.bias.fill_(self.bias)


def fit_head(features: Tensor, targets: Tensor, weights: Tensor, penalty: float) -> Head:
    """Logistic regression on targets in [0, 1] by weighted cross-entropy with an L2 penalty on
    standardised features, by L-BFGS."""
    mean, scale = features.mean(0), features.std(0) + 1e-6
    inputs, share = ((features - mean) / scale).double(), (weights / weights.sum()).double()
    beta = torch.zeros(features.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([beta], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        logits = inputs @ beta[1:] + beta[0]
        each = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, targets.double(), reduction="none"
        )
        total = (share * each).sum() + penalty * beta[1:].square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    solver.step(loss)  # type: ignore[no-untyped-call]
    weight = (beta[1:].detach() / scale.double()).float()
    return Head(weight, float(beta[0].detach() - (weight.double() * mean.double()).sum()))


class Learning:
    """The labels of a set of trees beside their features: fits heads, and measures them."""

    def __init__(self, labels: Labels, features: Mapping[Text, Tensor]) -> None:
        self.labels, self.features = labels, features
        self.lowest, self.width = labels.bounds[0], labels.bounds[1] - labels.bounds[0]
        self.tasks = sorted({action.task for action in labels.actions.values()})

    def fit(
        self, tasks: Iterable[str], kind: Literal["mc", "td"], trust: float, penalty: float
    ) -> Head:
        """A head fitted to the actions of these tasks: to their Monte-Carlo process rewards, each
        weighted by its outcomes, or to lambda-returns with lambda = `trust`."""
        chosen = set(tasks)
        texts = [t for t, action in self.labels.actions.items() if action.task in chosen]
        if kind == "mc":
            targets = {text: self.labels.actions[text].mean for text in texts}
            counts = {text: len(self.labels.actions[text].outcomes) for text in texts}
            return self._fit(texts, targets, counts, penalty)
        rollouts = [r for r in self.labels.rollouts if chosen >= self._tasks_of(r)]
        values = dict.fromkeys(texts, 0.0)
        head, weight = None, 1.0
        for _ in range(SWEEPS):
            targets, counts = lambda_returns(rollouts, values, trust if head else weight)
            known = [text for text in targets if text in self.features]
            head = self._fit(known, targets, counts, penalty)
            predicted = self.values(head, list(values))
            values = dict(zip(values, predicted, strict=True))
        assert head is not None
        return head

    def _tasks_of(self, rollout: Rollout) -> set[str]:
        found = (self.labels.actions.get(text) for text in rollout.actions)
        return {action.task for action in found if action is not None}

    def _fit(
        self,
        texts: Sequence[Text],
        targets: Mapping[Text, float],
        counts: Mapping[Text, int],
        penalty: float,
    ) -> Head:
        rows = torch.stack([self.features[text] for text in texts])
        share = [(targets[text] - self.lowest) / self.width for text in texts]
        weights = torch.tensor([float(counts[text]) for text in texts])
        return fit_head(rows, torch.tensor(share).clamp(0, 1), weights, penalty)

    def values(self, head: Head, texts: Sequence[Text], scale: Scale | None = None) -> list[float]:
        """What a head says of actions."""
        scores = head.scores(torch.stack([self.features[text] for text in texts]))
        plain = Scale(self.lowest, self.width, 1.0, 0.0, 0.0, 0.0)
        return [float(value) for value in (scale or plain).value(scores)]

    def worth(self, heads: Mapping[str, Head], scales: Mapping[str, Scale] | None = None) -> Worth:
        """What heads are worth, each on the task that it is given for. By actions with several
        outcomes, as their own variance says how far their mean may be off; those that ended their
        episode are left out: their outcome needs no model."""
        texts, said = list[Text](), list[float]()
        for task, head in heads.items():
            own = [
                text
                for text, action in self.labels.actions.items()
                if action.task == task and not action.exact and len(action.outcomes) > 1
            ]
            if own:
                texts += own
                said += self.values(head, own, scales[task] if scales else None)
        actions = [self.labels.actions[text] for text in texts]
        seen = torch.tensor([action.mean for action in actions])
        noises = torch.tensor([variance(action.outcomes) for action in actions])
        of_means = noises / torch.tensor([float(len(action.outcomes)) for action in actions])
        predicted, noise = torch.tensor(said), float(noises.mean())
        wrong = float(((predicted - seen).square() - of_means).mean())
        spread = float(seen.var() - of_means.mean())
        bins = _bins(predicted, seen)
        return Worth(max(wrong, 1e-6), spread, noise, len(actions), len(heads), bins)

    def calibrated(self, head: Head, tasks: Iterable[str]) -> tuple[float, float]:
        """Slope and offset that fit a head's numbers to the outcomes of tasks that it did not learn
        from (Platt)."""
        chosen = set(tasks)
        own = [
            (text, action)
            for text, action in self.labels.actions.items()
            if action.task in chosen and not action.exact
        ]
        scores = head.scores(torch.stack([self.features[text] for text, _ in own]))[:, None]
        share = torch.tensor([(action.mean - self.lowest) / self.width for _, action in own])
        weights = torch.tensor([float(len(action.outcomes)) for _, action in own])
        fitted = fit_head(scores, share.clamp(0, 1), weights, 1e-6)
        return float(fitted.weight[0]), fitted.bias

    def folds(self, count: int, seed: int) -> list[list[str]]:
        """The tasks in `count` parts of about the same size. Raises DataError for fewer tasks."""
        if len(self.tasks) < count:
            tasks = counted(len(self.tasks), "tasks")
            raise DataError(f"{tasks}: {count} are needed to hold some out")
        order = sorted(self.tasks, key=lambda task: derive_seed(seed, "fold", task))
        return [order[number::count] for number in range(count)]


def lambda_returns(
    rollouts: Iterable[Rollout], values: Mapping[Text, float], trust: float
) -> tuple[dict[Text, float], dict[Text, int]]:
    """The mean lambda-return of each action over the rollouts that took it, and how many did. The
    last action's is the outcome; an earlier one's is (1 - lambda) times the value of the next plus
    lambda times its return. That is the value plus the generalised advantage (arXiv 1506.02438)
    where rewards come at the end."""
    sums, counts = defaultdict[Text, float](float), defaultdict[Text, int](int)
    for rollout in rollouts:
        following = rollout.outcome
        for text in reversed(rollout.actions):
            sums[text] += following
            counts[text] += 1
            following = (1 - trust) * values.get(text, following) + trust * following
    return {text: total / counts[text] for text, total in sums.items()}, dict(counts)


def _bins(predicted: Tensor, seen: Tensor) -> tuple[tuple[float, float, int], ...]:
    parts = torch.argsort(predicted).chunk(10)
    return tuple(
        (round(float(predicted[p].mean()), 4), round(float(seen[p].mean()), 4), len(p))
        for p in parts
        if len(p)
    )


@dataclass(frozen=True)
class Trained:
    """A head with its scale, and what it is worth: measured by leaving tasks out."""

    head: Head
    scale: Scale
    worth: Worth
    penalty: float


def train_head(
    learning: Learning, kind: Literal["mc", "td"] = "mc", trust: float = 0.9, seed: int = 0
) -> Trained:
    """The head for these labels: its penalty, its calibration and its worth by leaving tasks out,
    then fitted to all. Raises DataError for fewer tasks than folds."""
    folds = learning.folds(FOLDS, seed)
    tried = dict[float, tuple[float, dict[str, Head]]]()
    for penalty in PENALTIES:
        heads = dict[str, Head]()
        for fold in folds:
            head = learning.fit(set(learning.tasks) - set(fold), kind, trust, penalty)
            heads |= dict.fromkeys(fold, head)
        tried[penalty] = (learning.worth(heads).error, heads)
    penalty = min(tried, key=lambda value: tried[value][0])
    scale, worth = calibrate(learning, folds, tried[penalty][1])
    head = learning.fit(learning.tasks, kind, trust, penalty)
    return Trained(head, scale, worth, penalty)


def calibrate(
    learning: Learning, folds: Sequence[Sequence[str]], heads: Mapping[str, Head]
) -> tuple[Scale, Worth]:
    """The scale of heads, each given for the tasks of a fold that it did not learn from, and what
    they are worth."""
    plain = Scale(learning.lowest, learning.width, 1.0, 0.0, 0.0, 0.0)
    scales = dict[str, Scale]()
    for number, fold in enumerate(folds):
        # by the heads of the other folds, each on the tasks that it did not learn from
        others = [f for other, f in enumerate(folds) if other != number]
        pairs = [learning.calibrated(heads[other[0]], other) for other in others]
        slope, offset = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
        scales |= dict.fromkeys(fold, replace(plain, slope=slope, offset=offset))
    worth = learning.worth(heads, scales)
    pairs = [learning.calibrated(heads[fold[0]], fold) for fold in folds]
    slope, offset = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    scale = replace(plain, slope=slope, offset=offset, error=worth.error, noise=worth.noise)
    return scale, worth
