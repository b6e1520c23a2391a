"""Controls for `benchmarks.learning`: credit by what the goal itself says, and no credit at all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from statistics import fmean

from rro.exploration.tree import Tree
from rro.exploration.visits import PlayedRollout, played_rollouts
from rro.learning.credit.advantages import episode_row
from rro.learning.credit.base import Credit, CreditContext
from rro.types import WeightedEpisode
from rro.webshop import action_text, parse_action


@dataclass(frozen=True)
class KnownValues(Credit):
    """For shops whose purchases earn all or nothing: a state is worth 1 until the first action that
    nobody who never corrects a mistake can win after, then 0; an action's advantage is the
    difference, less the mean over the task's actions. The goal is read from the instruction."""

    context: CreditContext = CreditContext()

    gives = "advantages"

    def rows(self, tree: Tree) -> list[WeightedEpisode]:
        played = played_rollouts(tree)
        values = [list(map(float, _differences(each))) for each in played]
        mean = fmean(value for each in values for value in each) if played else 0.0
        return [
            episode_row(tree, each, [value - mean for value in own], self.context)
            for each, own in zip(played, values, strict=True)
        ]


@dataclass(frozen=True)
class NoAdvantages(Credit):
    """Every episode with advantages of 0: the learner only imitates successes."""

    context: CreditContext = CreditContext()

    gives = "advantages"

    def rows(self, tree: Tree) -> list[WeightedEpisode]:
        return [
            episode_row(tree, each, [0.0] * len(each.steps), self.context)
            for each in played_rollouts(tree)
        ]


def _differences(played: PlayedRollout) -> list[int]:
    """-1 for the step that lost the episode, 0 for the others."""
    name, wanted = _goal(played.messages()[0].content)
    found: list[int] = []
    chosen, page, lost = set[str](), "", False
    for step in played.steps:
        word, argument = parse_action(action_text(step.action.content) or "") or ("", "")
        wrong = _wrong(word, argument, page, chosen, name, wanted)
        found.append(-int(wrong and not lost))
        lost, page = lost or wrong, step.observation
        chosen = set() if argument.isdigit() else chosen | {argument}
    return found


def _wrong(
    word: str, argument: str, page: str, chosen: set[str], name: str, wanted: frozenset[str]
) -> bool:
    if word != "click":
        return False
    if argument == "buy now":
        return not wanted <= chosen
    if argument.isdigit():
        return f"[SEP] {argument} [SEP] {name} [SEP]" not in page
    parts = page.split(" [SEP] ")
    return parts[-1] == "Buy Now" and argument in parts[5:-6] and argument not in wanted


@cache
def _goal(opening: str) -> tuple[str, frozenset[str]]:
    """The wanted product's name and the values of its options."""
    instruction = opening.partition("i want a ")[2].partition(" [SEP]")[0]
    name, _, wishes = instruction.partition(", and price lower")[0].partition(" with ")
    return name, frozenset(wish.partition(": ")[2] for wish in wishes.split(", and "))
