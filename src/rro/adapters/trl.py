"""rro's environments for TRL's GRPOTrainer: as its `rollout_func`, and as its
`environment_factory`.

Read in TRL 1.16. TRL samples, computes advantages and trains; rro plays the episodes. Knows no
benchmark."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rro.adapters.served_episodes import Episode, Snapshots
from rro.environments.base import Agent, Benchmark
from rro.episodes.loop import Limits, attempt_episode, play_task
from rro.errors import UsageError
from rro.loop_thread import LoopThread
from rro.seeds import derive_seed
from rro.types import SamplingParams, Task, Trajectory

ENDED = "The episode has ended."


def task_rows(benchmark: Benchmark, split: str = "train") -> list[dict[str, str]]:
    """Rows for `train_dataset`: each names a task, in `prompt` (for `rollout_func`) and in `task`
    (for `environment_factory`)."""
    return [{"prompt": task.id, "task": task.id} for task in benchmark.tasks(split)]


def outcome(outcome: Sequence[float | None], **ignored: Any) -> list[float | None]:
    """The reward function that goes with `rollout_func`: the outcome of each episode. None for one
    that failed, which TRL leaves out."""
    return list(outcome)


@dataclass
class Rollouts:
    """Plays an episode for each prompt that TRL asks for, with the weights of its trainer; all at
    once, in batches. What `rollout_func` returns."""

    benchmark: Benchmark
    tasks: dict[str, Task]
    limits: Limits
    max_new_tokens: int
    seed: int
    _thread: LoopThread = field(default_factory=lambda: LoopThread("TRL's rollouts"))
    _calls: itertools.count[int] = field(default_factory=itertools.count)

    def __call__(self, prompts: list[str], trainer: Any) -> dict[str, list[Any]]:
        """As TRL calls it: prompts come repeated, one for each episode. Raises UsageError for a
        prompt that is no task."""
        from rro.models.chat import ChatFormat

        unknown = next((prompt for prompt in prompts if prompt not in self.tasks), None)
        if unknown is not None:
            raise UsageError(f"{self.benchmark.name} has no task {unknown!r}: see task_rows")
        format_ = ChatFormat(trainer.processing_class)
        if not format_.keeps:
            raise UsageError(
                "TRL takes an episode as one sequence, which this chat template has not: name "
                "another template"
            )
        episodes = self._thread.run_blocking(self._play(prompts, trainer))
        columns = [_columns(episode, format_) for episode in episodes]
        names = ("prompt_ids", "completion_ids", "env_mask", "logprobs", "outcome")
        return {name: [row[number] for row in columns] for number, name in enumerate(names)}

    async def _play(self, prompts: Sequence[str], trainer: Any) -> list[Trajectory]:
        from rro.policies.local.policy import TransformersPolicy

        model = trainer.accelerator.unwrap_model(trainer.model)
        training, cached, number = model.training, model.config.use_cache, next(self._calls)
        # Off for gradient checkpointing.
        model.config.use_cache = True
        # Without what changes how the model attends: TRL trains on with it.
        policy = TransformersPolicy(
            model, trainer.processing_class, "policy", shared_prefixes=False, packed_passes=False
        )
        process = trainer.accelerator.process_index
        try:
            episodes = (
                self._episode(policy, prompt, trainer, (number, process, place))
                for place, prompt in enumerate(prompts)
            )
            return list(await asyncio.gather(*episodes))
        finally:
            await policy.close()
            model.config.use_cache = cached
            model.train(training)

    async def _episode(
        self, policy: Agent, prompt: str, trainer: Any, place: tuple[int, int, int]
    ) -> Trajectory:
        params = SamplingParams(
            trainer.args.temperature,
            trainer.args.top_p,
            max_new_tokens=self.max_new_tokens,
            logprobs=True,
        )
        return await attempt_episode(
            lambda: play_task(
                self.benchmark,
                policy,
                self.tasks[prompt],
                params=params,
                limits=self.limits,
                seed=derive_seed(self.seed, *place),
                environment_seed=derive_seed(self.seed, "environment", prompt),
            ),
            self.limits.retries,
        )


def rollout_func(
    benchmark: Benchmark,
    split: str = "train",
    *,
    max_steps: int | None = None,
    max_new_tokens: int = 128,
    step_timeout: float = 60.0,
    seed: int = 0,
) -> Callable[[list[str], Any], dict[str, list[Any]]]:
    """The `rollout_func` of GRPOTrainer that plays tasks of `split`. The prompts are `task_rows`,
    the reward function is `outcome`.

    `max_steps`: actions of an episode (default: the benchmark's limit); `max_new_tokens`: tokens of
    each; `step_timeout`: seconds for a call into the environment. Token ids are the sampled ones,
    and what the environment said is masked out."""
    limits = Limits(max_steps or benchmark.max_steps, step_timeout)
    tasks = {task.id: task for task in benchmark.tasks(split)}
    return Rollouts(benchmark, tasks, limits, max_new_tokens, seed)


def _columns(
    episode: Trajectory, format_: Any
) -> tuple[list[int], list[int], list[int], list[float], float | None]:
    """An episode as TRL takes it: ids of the prompt, ids after it, which of these were sampled,
    their log-probabilities (0 for others), and the outcome."""
    if episode.reward is None or not episode.steps:
        # Nothing to learn from; TRL wants a token all the same.
        end = [format_.end_of_turn]
        return end, end, [0], [0.0], episode.reward
    opening = format_.encode(episode.opening, True).ids
    whole = format_.encode(episode.messages(), False)
    ids, mask = whole.ids[len(opening) :], whole.mask[len(opening) :]
    last = len(mask) - mask[::-1].index(True)
    ids, mask = ids[:last], mask[:last]
    sampled = iter(value for step in episode.steps for value in step.logprobs or ())
    logprobs = [next(sampled) if own else 0.0 for own in mask]
    return opening, ids, [int(own) for own in mask], logprobs, episode.reward


def environment_factory(
    benchmark: Benchmark, split: str = "train", max_steps: int | None = None
) -> type:
    """The `environment_factory` of GRPOTrainer: a class whose tool `act` takes an action as text.
    Rows name a task in `task`, as `task_rows` do. An episode has at most `max_steps` actions
    (default: the benchmark's limit)."""
    tasks = {task.id: task for task in benchmark.tasks(split)}
    most = max_steps or benchmark.max_steps

    class BenchmarkEnvironment:
        """An episode at a time."""

        def __init__(self) -> None:
            self._episode = Episode(benchmark, Snapshots(0))
            self._reward: float | None = None

        def reset(self, task: str = "", **row: Any) -> str:
            """Start the row's task; returns the opening as text."""
            if task not in tasks:
                raise UsageError(f"{benchmark.name} has no task {task!r}: see task_rows")
            self._reward = None
            opening = self._episode.reset(0, tasks[task])
            self._reward = self._episode.truncated_reward()
            return "\n\n".join(message.content for message in opening)

        def act(self, text: str) -> str:
            """Take one action in the environment.

            Args:
                text: The action, as the instructions describe it.

            Returns:
                What the environment answers.
            """
            if not self._episode.open or self._episode.steps >= most:
                return ENDED
            # Until the environment has answered, the outcome is missing.
            self._reward = None
            step = self._episode.step(text)
            self._reward = step.reward if step.done else self._episode.truncated_reward()
            return step.observation

        def get_reward(self) -> float | None:
            """The outcome; None where the environment failed, which TRL leaves out."""
            return self._reward

    return BenchmarkEnvironment
