"""What a recipe chooses through the doors: strategy, credit and learner, opened with what the run
knows.

Where the recipe leaves credit and learner open, the strategy says which ones suit its trees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rro import plugins
from rro.config import parse_options
from rro.errors import UsageError
from rro.exploration.strategies.base import Strategy, StrategyContext
from rro.learning.base import Learner
from rro.learning.credit.base import Credit, CreditContext
from rro.learning.credit.choosing import credit_of
from rro.pipeline.run import Run
from rro.plugins import Plugin
from rro.types import Task, Trajectory


@dataclass(frozen=True)
class Choices:
    """The plug-ins of one run. Raises UsageError for unknown names and for options that do not
    fit."""

    run: Run

    @cached_property
    def strategy(self) -> Strategy:
        """How the run explores."""
        section, benchmark = self.run.config.explore, self.run.benchmark
        context = StrategyContext(
            experts=self.experts,
            reward_range=benchmark.reward_range,
            success_reward=benchmark.success_reward,
            one_policy=section.pricing == "policy" and section.proposal_temperature is None,
        )
        strategy: Strategy = self._strategy.make(
            parse_options(section, self._strategy, "explore"), context
        )
        return strategy

    def credit(self, iteration: int) -> Credit:
        """What turns the trees of an iteration into rows."""
        section, benchmark = self.run.config.credit, self.run.benchmark
        context = CreditContext(
            strategy=self.strategy.name,
            iteration=iteration,
            experts=self.experts,
            success_reward=benchmark.success_reward,
            reward_range=benchmark.reward_range,
        )
        return credit_of(self.strategy, context, section)

    @property
    def tasks(self) -> Sequence[Task]:
        """The train tasks to explore: only those with an expert episode where strategy or credit
        needs it."""
        tasks = self.run.train_tasks
        if self._needs_experts:
            tasks = [task for task in tasks if task.id in self.experts]
        if not tasks:
            raise UsageError(
                "no task to explore: the expert file has no task of the train split (ids must be "
                "task ids)"
            )
        return tasks[: self.run.config.explore.tasks]

    @cached_property
    def experts(self) -> Mapping[str, Trajectory]:
        """Expert episodes by task; none unless strategy or credit needs them."""
        return self.run.expert_episodes() if self._needs_experts else {}

    @cached_property
    def learner(self) -> Learner:
        """What learns from the rows. Raises UsageError where it does not take what the credit
        gives."""
        config, own = self.run.config, self.strategy
        plugin = plugins.LEARNERS.find(config.optimise.learner or own.learner)
        takes, gives = (
            getattr(plugin.factory, "takes", ""),
            getattr(self._credit.factory, "gives", ""),
        )
        if takes != gives:
            raise UsageError(
                f"learner {plugin.name} takes {takes}, but credit {self._credit.name} gives "
                f"{gives}: set optimise.learner or credit.name to one that fits the other"
            )
        stage = getattr(config, plugin.name, None)  # [sft] and [dpo] have sections of their own
        defaults = {"endings": own.endings} if "endings" in plugin.option_names() else {}
        if stage is not None:
            defaults |= {name: getattr(stage, name) for name in stage.model_fields_set}
        learner: Learner = plugin.make(parse_options(config.optimise, plugin, "optimise", defaults))
        return learner

    @property
    def _needs_experts(self) -> bool:
        return self._strategy.needs("experts") or self._credit.needs("experts")

    @cached_property
    def _strategy(self) -> Plugin:
        return plugins.STRATEGIES.find(self.run.config.explore.strategy)

    @cached_property
    def _credit(self) -> Plugin:
        own: Any = self._strategy.factory
        return plugins.CREDITS.find(self.run.config.credit.name or own.credit)
