"""What a recipe chooses through the doors: strategy, credit and learner, opened with what the run
knows.

Where the recipe leaves credit and learner open, the strategy says which ones suit its trees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from rro import plugins
from rro.config import Config, parse_options
from rro.environments.base import Benchmark
from rro.errors import UsageError
from rro.exploration.strategies.base import Strategy, StrategyContext
from rro.learning.base import Learner
from rro.learning.credit.base import Credit, CreditContext
from rro.learning.credit.choosing import credit_of
from rro.pipeline.run import Run
from rro.plugins import Plugin
from rro.types import Task, Trajectory


@dataclass(frozen=True)
class Chosen:
    """The plug-ins that a recipe names, found but not made."""

    config: Config

    @property
    def strategy(self) -> Plugin:
        """How to explore."""
        return plugins.STRATEGIES.find(self.config.explore.strategy)

    @property
    def credit(self) -> Plugin:
        """What turns trees into rows: the recipe's, or the strategy's own. Raises UsageError where
        it needs whole episodes, which the strategy does not play."""
        own: str = getattr(self.strategy.factory, "credit", Strategy.credit)
        credit = plugins.CREDITS.find(self.config.credit.name or own)
        if credit.needs("episodes") and not getattr(self.strategy.factory, "plays_episodes", True):
            raise UsageError(
                f"credit {credit.name} compares whole episodes of the policy, and strategy "
                f"{self.strategy.name} plays none: explore with one that does, as eto and ipr do, "
                "or name another credit"
            )
        return credit

    @property
    def learner(self) -> Plugin:
        """What learns from the rows: the recipe's, or the strategy's own. Raises UsageError where
        it does not take what the credit gives."""
        own: str = getattr(self.strategy.factory, "learner", Strategy.learner)
        name = self.config.optimise.learner or own
        plugin, credit = plugins.LEARNERS.find(name), self.credit
        takes, gives = (
            getattr(part.factory, attribute, "nothing")
            for part, attribute in ((plugin, "takes"), (credit, "gives"))
        )
        if takes != gives:
            raise UsageError(
                f"learner {name} takes {takes}, but credit {credit.name} gives {gives}: set "
                "optimise.learner or credit.name to one that fits the other"
            )
        return plugin

    def check_pricing(self) -> None:
        """Raises UsageError where a process reward model is to estimate rewards, but the strategy
        has none estimated, or the recipe names no such model."""
        section = self.config.explore
        if section.pricing not in ("prm", "mixed"):
            return
        if not getattr(self.strategy.factory, "estimates", True):
            raise UsageError(
                f'explore.pricing = "{section.pricing}" is for strategies that estimate single '
                f"actions, such as rro and fixed, and {section.strategy} has none estimated"
            )
        if section.reward_model is None:
            raise UsageError(
                f'explore.pricing = "{section.pricing}" needs explore.reward_model, the folder of '
                "a process reward model: train one with rro train-prm"
            )

    def made_strategy(self, benchmark: Benchmark, experts: Mapping[str, Trajectory]) -> Strategy:
        """The strategy with its options. Raises UsageError for options that do not fit."""
        section = self.config.explore
        context = StrategyContext(
            experts=experts,
            reward_range=benchmark.reward_range,
            success_reward=benchmark.success_reward,
            one_policy=section.pricing != "sft" and section.proposal_temperature is None,
        )
        options = parse_options(section, self.strategy, "explore")
        strategy: Strategy = self.strategy.make(options, context)
        return strategy

    def made_learner(self, strategy: Strategy) -> Learner:
        """The learner with its options, of which the strategy recommends some."""
        config, plugin = self.config, self.learner
        stage = getattr(config, plugin.name, None)  # [sft] and [dpo] have sections of their own
        recommended = {"endings": strategy.endings}
        defaults = {name: recommended[name] for name in recommended.keys() & plugin.option_names()}
        if stage is not None:
            defaults |= {name: getattr(stage, name) for name in stage.model_fields_set}
        learner: Learner = plugin.make(parse_options(config.optimise, plugin, "optimise", defaults))
        check = getattr(learner, "check", None)
        if check is not None:
            check(config.policy.temperature)
        return learner

    @property
    def needs_experts(self) -> bool:
        """Whether strategy or credit needs expert episodes of the tasks."""
        return self.strategy.needs("experts") or self.credit.needs("experts")


@dataclass(frozen=True)
class Choices:
    """The plug-ins of one run. Raises UsageError for unknown names and for options that do not
    fit."""

    run: Run

    @cached_property
    def strategy(self) -> Strategy:
        """How the run explores."""
        self._chosen.check_pricing()
        return self._chosen.made_strategy(self.run.benchmark, self.experts)

    def credit(self, iteration: int) -> Credit:
        """What turns the trees of an iteration into rows."""
        return credit_of(self.strategy, self.credit_context(iteration), self.run.config.credit)

    @property
    def credit_name(self) -> str:
        """The name that the credit is found by."""
        return self._chosen.credit.name

    def credit_context(self, iteration: int) -> CreditContext:
        """What a credit of an iteration is told of the run."""
        benchmark = self.run.benchmark
        return CreditContext(
            strategy=self.strategy.name,
            iteration=iteration,
            experts=self.experts,
            success_reward=benchmark.success_reward,
            reward_range=benchmark.reward_range,
        )

    @property
    def all_tasks(self) -> Sequence[Task]:
        """The train tasks that can be explored: only those with an expert episode where strategy or
        credit needs it."""
        tasks = self.run.train_tasks
        if self._chosen.needs_experts:
            tasks = [task for task in tasks if task.id in self.experts]
        if not tasks:
            raise UsageError(
                "no task to explore: the expert file has no task of the train split (ids must be "
                "task ids)"
            )
        return tasks

    @cached_property
    def experts(self) -> Mapping[str, Trajectory]:
        """Expert episodes by task; none unless strategy or credit needs them."""
        return self.run.expert_episodes() if self._chosen.needs_experts else {}

    @cached_property
    def learner(self) -> Learner:
        """What learns from the rows. Raises UsageError where it does not take what the credit
        gives."""
        return self._chosen.made_learner(self.strategy)

    @cached_property
    def _chosen(self) -> Chosen:
        return Chosen(self.run.config)
