"""The ways to explore, by name."""

from __future__ import annotations

from collections.abc import Mapping

from rro.config import ExploreConfig
from rro.errors import UsageError
from rro.exploration.beliefs import Prior
from rro.exploration.strategies.adaptive import AdaptiveExploration
from rro.exploration.strategies.base import Strategy
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.exploration.strategies.ipr import IterativeStepRefinement
from rro.exploration.strategies.rising import RisingExploration
from rro.exploration.strategies.whole import RejectionSampling, TrajectoryExploration
from rro.types import Trajectory

NEED_EXPERTS = frozenset({"ipr", "eto"})


def make_strategy(
    config: ExploreConfig,
    experts: Mapping[str, Trajectory],
    success_reward: float,
    reward_range: tuple[float, float] = (0.0, 1.0),
) -> Strategy:
    """The strategy that a recipe names. `experts` (by task id) are read by ipr and eto alone,
    `reward_range` by adaptive."""
    margin = (
        config.margin if config.margin is not None else 0.01 if config.strategy == "ipr" else 0.0
    )
    if config.strategy == "rro":
        return RisingExploration(
            config.rollouts, config.candidates, config.rising, config.start, config.siblings, margin
        )
    if config.strategy == "adaptive":
        return _adaptive(config, margin, reward_range)
    if config.strategy == "fixed":
        return FixedSizeExploration(config.rollouts, config.candidates, config.siblings, margin)
    if config.strategy == "ipr":
        return IterativeStepRefinement(experts, config.rollouts, margin, config.sides)
    if config.strategy == "eto":
        return TrajectoryExploration(experts)
    return RejectionSampling(success_reward, config.rollouts)


def _adaptive(config: ExploreConfig, margin: float, reward_range: tuple[float, float]) -> Strategy:
    if config.adaptive.recycle and (
        config.pricing == "sft" or config.proposal_temperature is not None
    ):
        raise UsageError(
            "strategy adaptive takes its candidates from rollouts, so both need one model and one temperature: leave out "
            "explore.pricing and explore.proposal_temperature, or set explore.adaptive.recycle=false"
        )
    prior = Prior(config.adaptive.prior, *reward_range)
    return AdaptiveExploration(config.adaptive, config.siblings, margin, prior)
