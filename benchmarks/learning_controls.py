"""A control for `benchmarks.learning`: credit by what the goal itself says."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from rro.exploration.tree import Tree
from rro.exploration.visits import PlayedRollout, played_rollouts
from rro.learning.credit.advantages import episode_row
from rro.learning.credit.base import Credit, CreditContext
from rro.types import WeightedEpisode
from rro.webshop.environment import action_text, parse_action

RIGHT = 0.9
"""How often the policy whose values are known does the right thing."""


@dataclass(frozen=True)
class KnownValues(Credit):
    """For shops whose purchases earn all or nothing: A = V(after) - V(before), with the values of a
    policy that takes the right step with probability `RIGHT` and never corrects a mistake: V is
    `RIGHT` to the power of the steps left, and 0 after a mistake. A mistake is another product, an
    option's value out of the instruction's order, or buying too early; any other step that does not
    help leaves the value as it is. The goal is read from the instruction."""

    context: CreditContext = CreditContext()

    gives = "advantages"

    def rows(self, tree: Tree) -> list[WeightedEpisode]:
        return [
            episode_row(tree, each, differences(each), self.context)
            for each in played_rollouts(tree)
        ]


def differences(played: PlayedRollout) -> list[float]:
    """The advantage of each step of a rollout from the start."""
    name, wanted = _goal(played.messages()[0].content)
    found, visit = list[float](), Visit(name, wanted)
    for step in played.steps:
        before = visit.value
        word, argument = parse_action(action_text(step.action.content) or "") or ("", "")
        if not step.invalid:
            visit.act(word, argument)
        found.append(visit.value - before)
        visit.page = step.observation
    return found


@dataclass
class Visit:
    """How far a visit has come: `right` right steps of all that it takes."""

    name: str
    wanted: tuple[str, ...]
    page: str = ""
    right: int = 0
    lost: bool = False

    @property
    def value(self) -> float:
        """V, by `KnownValues`. It takes a search, a product, its options, and the purchase."""
        return 0.0 if self.lost else RIGHT ** (len(self.wanted) + 3 - self.right)

    def act(self, word: str, argument: str) -> None:
        """Take a step."""
        parts = self.page.split(" [SEP] ")
        if word == "search":
            self.right = max(1, self.right)
        elif argument.isdigit():
            self.lost |= f" [SEP] {argument} [SEP] {self.name} [SEP] " not in self.page
            self.right = max(2, self.right)
        elif argument == "buy now":
            self.lost |= self.right < len(self.wanted) + 2
            self.right += 1
        elif parts[-1] == "Buy Now" and argument in parts[5:-6]:
            self._choose(argument, self.right - 2)

    def _choose(self, value: str, done: int) -> None:
        if done < len(self.wanted) and value == self.wanted[done]:
            self.right += 1
        else:
            self.lost |= value not in self.wanted[:done]


@cache
def _goal(opening: str) -> tuple[str, tuple[str, ...]]:
    """The wanted product's name and the values of its options, in order."""
    instruction = opening.partition("i want a ")[2].partition(" [SEP]")[0]
    name, _, wishes = instruction.partition(", and price lower")[0].partition(" with ")
    return name, tuple(wish.partition(": ")[2] for wish in wishes.split(", and "))
