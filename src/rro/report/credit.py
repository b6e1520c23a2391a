"""The advantages that a run's credit gives to the messages of a tree, for the viewer.

They are computed from the finished tree, as the training's were. Runs no code that a folder of
somebody else names, and leaves out what cannot be computed without the environment."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from statistics import fmean

from rro import plugins
from rro.concurrency import contained
from rro.config import parse_options
from rro.errors import describe
from rro.exploration.strategies.base import Strategy, StrategyContext
from rro.exploration.tree import Node, Tree
from rro.learning.credit.base import Credit, CreditContext
from rro.learning.credit.choosing import credit_of, credited
from rro.runs.folder import RunFolder
from rro.types import Message

log = logging.getLogger(__name__)


class Advantages:
    """What messages of one tree were given. A message is known by identity: rows hold those of the
    tree itself."""

    def __init__(self, tree: Tree | None = None, credit: Credit | None = None) -> None:
        self._given = defaultdict[int, list[float]](list)
        for row in credited(credit, tree) if credit and tree else ():
            for message, advantage in zip(row.messages, row.advantages, strict=True):
                if advantage is not None:
                    self._given[id(message)].append(advantage)

    def of(self, *messages: Message) -> float | None:
        """The mean advantage of these messages; None where none has one."""
        values = [value for message in messages for value in self._given.get(id(message), ())]
        return round(fmean(values), 4) if values else None

    def of_node(self, node: Node) -> float | None:
        """That of a candidate; of a step of rollouts, the mean over all that took it."""
        if node.recycled:
            return self.of(*_taken(node))
        return None if node.step is None else self.of(node.action)


def _taken(node: Node) -> Iterator[Message]:
    """The actions of the rollouts that began above a node and came through it."""
    above, texts = node, list[str]()
    while above.parent is not None:
        texts, above = [above.action.text, *texts], above.parent
        for rollout in above.rollouts.values():
            steps = rollout.steps[: len(texts)]
            if [step.action.text for step in steps] == texts:
                yield steps[-1].action


class RunCredit:
    """The credit of a run, where it gives advantages and may be used here."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def advantages(self, tree: Tree) -> Advantages:
        """Those of a finished tree; empty where the run's credit gives none."""
        try:
            return Advantages(tree, self._credit)
        except Exception as error:  # whatever a credit of somebody else does
            log.debug("no advantages of task %s: %s", tree.task.id, describe(error))
            return Advantages()

    @cached_property
    def _credit(self) -> Credit | None:
        config = self._folder.config
        names = (config.explore.strategy, config.credit.name or "")
        if any(":" in name for name in names) and not self._folder.trusted:
            return None
        try:
            with contained():
                plugins.search_in(config.modules if self._folder.trusted else ())
                plugin = plugins.STRATEGIES.find(config.explore.strategy)
                options = parse_options(config.explore, plugin, "explore")
                strategy: Strategy = plugin.make(options, StrategyContext())
                credit = credit_of(strategy, CreditContext(strategy=strategy.name), config.credit)
        except Exception as error:  # whatever a plug-in of somebody else does
            log.debug("%s: no advantages: %s", self._folder.path, describe(error))
            return None
        usable = credit.gives == "advantages" and not credit.needs
        return credit if usable else None
