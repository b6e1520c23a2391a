"""What a strategy is: a coroutine that asks a sampler and commits.

How a finished tree becomes pairs or demonstrations is not a strategy's business: see
`rro.learning.credit`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import Field

from rro.errors import RroError
from rro.exploration.sampler import Sampler, TaskFailed
from rro.exploration.tree import Node
from rro.types import Trajectory

Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class StrategyContext:
    """What a strategy is told of the run: expert episodes by task id (if it `needs` "experts"), the
    range of outcome rewards, the reward that counts as success, and whether candidates and rollouts
    come from one model at one temperature."""

    experts: Mapping[str, Trajectory] = field(default_factory=dict)
    reward_range: tuple[float, float] = (0.0, 1.0)
    success_reward: float = 1.0
    one_policy: bool = True

    def expert(self, task: str) -> Trajectory:
        """The expert's episode of a task. Raises RroError where there is none."""
        if task not in self.experts:
            raise RroError(
                f"task {task} has no expert episode: explore only tasks that experts.file has"
            )
        return self.experts[task]


def best_of(sampler: Sampler, node: Node, candidates: Iterable[Node]) -> Node:
    """Of the candidates below `node`, the one with the highest process reward, the first of equals.
    Those without an estimate (every rollout failed) are missing, not bad; raises TaskFailed if all
    are."""
    estimated = [(new.estimate.mean, new) for new in candidates if new.estimate is not None]
    if not estimated:
        raise TaskFailed(f"no candidate at node {node.id} has an estimate")
    return max(estimated, key=lambda pair: pair[0])[1]


class Strategy(ABC):
    """Does no I/O, no counting and no batching of its own. It is never told whether an answer is
    new or from the journal, so it must be a function of what the sampler answers.

    The class attributes are what a recipe need not say: what the strategy `needs` ("experts"),
    which credit and learner suit its trees, the temperature of its candidates (None: the policy's),
    DPO's `endings`, whether it plays whole episodes (`Sampler.play`), which some credits need, and
    whether it has actions estimated (`Sampler.estimate`), which a process reward model can do."""

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    plays_episodes: ClassVar[bool] = True
    estimates: ClassVar[bool] = True
    credit: ClassVar[str] = "pairs"
    learner: ClassVar[str] = "dpo"
    proposal_temperature: ClassVar[float | None] = None
    endings: ClassVar[float] = 1.0

    @abstractmethod
    async def explore(self, sampler: Sampler) -> None:
        """Grow and commit `sampler.tree`. May raise ContextFull (the trajectory ends there) or
        TaskFailed."""

    def credit_options(self) -> Mapping[str, Any]:
        """Options of its own credit that follow from its own options."""
        return {}
