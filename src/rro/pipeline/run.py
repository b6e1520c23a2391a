"""An open run: its folder and configuration, the one writer of its journal, its benchmark, and the
experts.

Knows nothing of stages: what is done with a run is in rro.pipeline.stages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from rro.config import Config
from rro.environments.base import Benchmark
from rro.environments.registry import open_environment
from rro.environments.splits import held_back_ids, tasks_of, validation_tasks
from rro.episodes.experts import (
    Conversation,
    check_tools,
    read_conversations,
    replayed_experts,
    scripted_experts,
    write_conversations,
)
from rro.episodes.loop import Limits
from rro.errors import DataError, counted
from rro.evaluation.results import EPISODES
from rro.plugins import search_in
from rro.policies.base import Policy
from rro.processes import rank, wait_for_all
from rro.runs.folder import START, RunFolder
from rro.runs.journal import Journal
from rro.runs.log_file import logged
from rro.runs.status import published
from rro.runs.trackers import require
from rro.types import SamplingParams, Task, Trajectory

log = logging.getLogger(__name__)


@dataclass
class Run:
    """An open run: its folder, the one writer of its journal, and the benchmark."""

    folder: RunFolder
    journal: Journal
    live: Policy | None = None
    """The policy that stays open from stage to stage in a run of many rounds."""

    @property
    def config(self) -> Config:
        return self.folder.config

    @cached_property
    def benchmark(self) -> Benchmark:
        log.info("opening %s ...", self.config.environment.name)
        return open_environment(self.config.environment)

    @property
    def limits(self) -> Limits:
        environment = self.config.environment
        steps = environment.max_steps or self.benchmark.max_steps
        retries, longest = self.config.explore.retries, environment.max_observation
        return Limits(steps, environment.step_timeout, retries, longest)

    @property
    def params(self) -> SamplingParams:
        policy = self.config.policy
        return SamplingParams(
            policy.temperature,
            policy.top_p,
            policy.max_new_tokens,
            max_thought_tokens=policy.max_thought_tokens,
            max_answer_tokens=policy.max_answer_tokens,
        )

    @cached_property
    def train_tasks(self) -> Sequence[Task]:
        return tasks_of(self.benchmark, self.config.environment.train_split)

    @cached_property
    def test_tasks(self) -> Sequence[Task]:
        return tasks_of(self.benchmark, self.config.environment.test_split)[
            : self.config.evaluate.tasks
        ]

    @cached_property
    def validation_tasks(self) -> Sequence[Task]:
        return validation_tasks(self.benchmark, self.config.environment)[
            : self.config.evaluate.tasks
        ]

    @cached_property
    def scripted(self) -> list[Trajectory]:
        return scripted_experts(
            self.benchmark, self.train_tasks, self.config.experts, self.limits, self.config.seed
        )

    def demonstrations(self) -> list[Conversation]:
        """What SFT learns from."""
        file, count = self.config.experts.file, self.config.experts.episodes
        if file is not None:
            rows = self._taught(file)[:count]
            check_tools(file, rows, self.benchmark, self.train_tasks[0])
            return [conversation for _, conversation in rows]
        if rank() == 0:
            write_conversations(self.scripted, self.folder.experts)
        return [episode.messages() for episode in self.scripted]

    def _taught(self, file: Path) -> list[tuple[str, Conversation]]:
        """The rows of an experts' file, without those of validation tasks."""
        rows, held = (
            read_conversations(file),
            held_back_ids(self.benchmark, self.config.environment),
        )
        kept = [row for row in rows if row[0] not in held]
        if len(kept) < len(rows):
            left_out = counted(len(rows) - len(kept), "rows")
            log.warning("%s: left out: %s of validation tasks", file, left_out)
        if not kept:
            raise DataError(f"{file}: every row is of a validation task: add rows of train tasks")
        return kept

    def expert_episodes(self) -> dict[str, Trajectory]:
        """Expert episodes by task, for the strategies that walk along them."""
        file = self.config.experts.file
        if file is None:
            episodes = self.scripted
        else:
            rows = read_conversations(file)[: self.config.experts.episodes]
            episodes = replayed_experts(
                self.benchmark, self.train_tasks, rows, self.limits, self.config.seed
            )
        return {episode.task: episode for episode in episodes if episode.steps}

    def modes(self) -> list[tuple[str, SamplingParams, int]]:
        """How policies are measured: (mode, parameters, episodes per task)."""
        section, params = self.config.evaluate, self.params
        if section.temperature is not None:
            params = replace(params, temperature=section.temperature)
        sampled = ("sampled", params, section.episodes)
        greedy = ("greedy", replace(params, temperature=0.0), 1)
        return [sampled, greedy] if section.greedy else [sampled]

    def is_done(self, stage: str) -> bool:
        return ("stage", stage) in self.journal

    def label(self, iteration: int) -> str:
        """What the weights after an iteration are called; 0: those that the run starts from, "base"
        where it has no SFT."""
        return self.folder.trained(iteration) if iteration else START[self.is_done("sft")]

    def has_acted(self, iteration: int) -> bool:
        """Whether the weights after an iteration have explored, estimated or been evaluated."""
        label = self.label(iteration)
        prefixes = dict.fromkeys(("candidate", "rollout", "episode"), f"{iteration + 1}/")
        prefixes |= dict.fromkeys(EPISODES.values(), f"{label}/")
        return any(
            next(self.journal.records(kind, prefix), None) is not None
            for kind, prefix in prefixes.items()
        )


def open_run(folder: RunFolder, benchmark: Benchmark | None = None) -> AbstractContextManager[Run]:
    """Open a run for work, on its `benchmark` if that is open already. Raises UsageError where
    another process works on it, or a tracker that it names is not installed, or a folder of
    somebody else names code."""
    folder.check_trust()
    require(folder.config.report_to)
    search_in(folder.config.modules)
    return _Opened(folder, benchmark)


class _Opened(AbstractContextManager[Run]):
    def __init__(self, folder: RunFolder, benchmark: Benchmark | None) -> None:
        if rank() == 0:
            self._journal = Journal(folder.journal)
        wait_for_all()
        if rank() > 0:
            self._journal = Journal(folder.journal, read_only=True)
        self._run, self._around = Run(folder, self._journal), ExitStack()
        if benchmark is not None:
            self._run.benchmark = benchmark

    def __enter__(self) -> Run:
        _quiet_libraries()
        if rank() == 0:
            self._around.enter_context(logged(self._run.folder.logs / "rro.log"))
            self._around.enter_context(published(self._run.folder))
        if self._run.config.threads is not None:
            import torch

            torch.set_num_threads(self._run.config.threads)
        return self._run

    def __exit__(self, *_: object) -> None:
        if self._run.live is not None:
            asyncio.run(self._run.live.close())
        self._journal.close()
        self._around.close()


def _quiet_libraries() -> None:
    """Our own progress bars say what is going on; those of the libraries below would tear them
    up."""
    import datasets
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
