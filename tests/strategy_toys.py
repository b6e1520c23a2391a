"""Every strategy with small options, forests to explore with them, and environments that fail."""

from __future__ import annotations

from fakes import TREE, ForkableTreeEnvironment, TreeEnvironment, folded

from rro.exploration.strategies.adaptive import AdaptiveExploration
from rro.exploration.strategies.base import StrategyContext
from rro.exploration.strategies.eto import TrajectoryExploration
from rro.exploration.strategies.fixed_size import FixedSizeExploration
from rro.exploration.strategies.ipr import IterativeStepRefinement
from rro.exploration.strategies.rft import RejectionSampling
from rro.exploration.strategies.rising import RisingExploration
from rro.seeds import derive_seed
from rro.types import Message, Source, Step, StopReason, Trajectory

FOREST = {f"task/{number}": TREE for number in range(12)}


def experts(tasks):
    steps = (
        Step(Message("assistant", "b", Source.EXPERT), "at b: go x y", 0.0, False),
        Step(Message("assistant", "x", Source.EXPERT), "the end", 0.6, True),
    )
    opening = (Message("system", "Walk."), Message("user", "at : go a b c"))
    return {
        task: Trajectory(task, opening, steps, 0.6, StopReason.TERMINAL, "expert", 0)
        for task in tasks
    }


def released_ipr(known):
    return IterativeStepRefinement(2, play_on=True, context=StrategyContext(known))


def strategies(known):
    return [
        folded(RisingExploration(2, 2)),
        folded(RisingExploration(2, 3, "weak", "zero"), siblings="all"),
        folded(FixedSizeExploration(2, 2, estimate_start=True)),
        folded(IterativeStepRefinement(2, context=StrategyContext(known)), known),
        folded(TrajectoryExploration(), known),
        folded(RejectionSampling(3)),
        folded(AdaptiveExploration()),
        folded(AdaptiveExploration(draws=3, max_error=0.3, budget=12), siblings="lowest"),
        folded(released_ipr(known), known, expert_pairs={"agree": True, "directions": "both"}),
    ]


STRATEGIES = strategies(experts(FOREST))
BY_NAME = [f"{number}-{strategy.name}" for number, strategy in enumerate(STRATEGIES)]


class Faulty:
    """Some steps of some tasks always fail."""

    def step(self, action):
        if derive_seed(self.task, self.path, action.content) % 8 == 0:
            raise ConnectionError("reset by peer")
        return super().step(action)


class FaultyByReplay(Faulty, TreeEnvironment):
    pass


class FaultyForkable(Faulty, ForkableTreeEnvironment):
    pass
