"""A run's process reward model: trained on what the run explored, and opened to estimate actions in
an exploration."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rro.errors import DataError, UsageError, counted
from rro.exploration.predictions import Predictor
from rro.files import publish
from rro.pipeline.choices import Choices
from rro.pipeline.explored import explored_trees
from rro.pipeline.run import Run
from rro.pipeline.weights import weights_after
from rro.types import Message, Usage

if TYPE_CHECKING:
    from rro.learning.reward_model_trainer import FineTuning

log = logging.getLogger(__name__)

Labels = Literal["mc", "td"]


def train_reward_model(
    run: Run,
    iteration: int = 1,
    labels: Labels = "mc",
    trust: float = 0.9,
    output: Path | None = None,
    tuning: FineTuning | None = None,
) -> dict[str, Any]:
    """Fit a head on the weights that explored in `iteration` to what its trees say, and write the
    model to `output` (default: `RUN/checkpoints/prm-ITERATION`). `labels`: the trees' Monte-Carlo
    process rewards, or lambda-returns with lambda = `trust`. With `tuning` all weights are trained,
    to Monte-Carlo process rewards. Returns what the model is worth on tasks that it did not learn
    from. Raises UsageError where nothing is explored, or the folder is taken."""
    from rro.learning.reward_model import Learning, features_of, labels_of, train_head
    from rro.learning.reward_model_trainer import train_all_weights
    from rro.models.process_rewards import ProcessRewardModel

    output = output or run.folder.checkpoint(f"prm-{iteration}")
    if output.exists():
        raise UsageError(f"{output} exists already: remove it, or name another folder")
    start, choices = weights_after(run, iteration - 1), Choices(run)
    trees = explored_trees(run, choices, iteration)
    found = labels_of(trees, choices.credit_context(iteration))
    actions = counted(len(found.actions), "actions")
    log.info("%s and %s", actions, counted(len(found.rollouts), "rollouts"))
    make, seed = partial(ProcessRewardModel.on, run.config.model, start), run.config.seed
    made: dict[str, Any]
    if tuning is not None:
        model, scale, worth = train_all_weights(make, found, tuning, seed)
        made = {"tuning": asdict(tuning)}
    else:
        model = make()
        trained = train_head(
            Learning(found, features_of(model, found.actions)), labels, trust, seed
        )
        trained.head.put_into(model.head)
        scale, worth, made = trained.scale, trained.worth, {"penalty": trained.penalty}
    measured = {
        "labels": labels,
        "trust": trust if labels == "td" else None,
        **made,
        **asdict(worth),
        "outcomes": worth.outcomes,
        "policy": f"{run.config.name}/{run.label(iteration - 1)}",
    }
    partial_folder = output.with_name(f"{output.name}.partial")
    model.save(partial_folder, scale, measured)
    publish(partial_folder, output)
    return {"checkpoint": str(output), **measured}


_TOGETHER = 32
"""Conversations in one forward pass."""
_Answer = tuple[float, Usage]
_Asked = tuple[Sequence[Message], asyncio.Future[_Answer]]


class _Predictor:
    """A process reward model that answers all who wait in one forward pass, in a thread."""

    def __init__(self, folder: Path, device: str, beside: bool) -> None:
        from rro.models.process_rewards import ProcessRewardModel, identity, read_scale

        self._scale, self.beside, self.identity = read_scale(folder), beside, identity(folder)
        self._model = ProcessRewardModel.load(folder, device)
        self.name, self.weight = f"prm {folder.name}", self._scale.weight
        self._waiting = list[_Asked]()
        self._work: asyncio.Task[None] | None = None

    async def value(self, messages: Sequence[Message]) -> tuple[float, Usage]:
        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((messages, answer))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._answer_all())
        return await answer

    async def _answer_all(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting[:_TOGETHER], self._waiting[_TOGETHER:]
            work = asyncio.to_thread(self._values, [one for one, _ in asked])
            answers = await asyncio.gather(work, return_exceptions=True)
            self._give(asked, answers[0])

    def _give(self, asked: list[_Asked], answers: list[_Answer] | BaseException) -> None:
        for number, (_, future) in enumerate(asked):
            if future.done():  # its caller was cancelled
                continue
            if isinstance(answers, BaseException):
                future.set_exception(answers)
            else:
                future.set_result(answers[number])

    def _values(self, conversations: Sequence[Sequence[Message]]) -> list[_Answer]:
        answers = []
        for score, tokens in self._model.scores(conversations):
            if not isfinite(score):
                raise DataError(f"{self.name} says {score} of an action: train it again")
            # Passes of other shapes round otherwise: a value does not depend on who else waited.
            value = round(float(self._scale.value(score)), 5)
            answers.append((value, Usage(prompt_tokens=tokens)))
        return answers


def open_predictor(run: Run, stage: str) -> Predictor | None:
    """The process reward model that a run's recipe estimates actions with in a stage; None where it
    rolls out. Raises DataError where there is none in the folder that the recipe names, and
    UsageError where the stage began with another one."""
    config, section = run.config, run.config.explore
    if section.pricing not in ("prm", "mixed") or section.reward_model is None:
        return None
    found = _Predictor(section.reward_model, config.model.device, section.pricing == "mixed")
    now = {"name": found.name, "identity": found.identity}
    before = run.journal.get("reward_model", stage)
    if before is None:
        run.journal.append("reward_model", stage, now)
    elif before["identity"] != found.identity:
        raise UsageError(
            f"{run.folder.path}: {stage} began with another process reward model than the one that "
            f"{section.reward_model} has now: bring that one back, or start a new run"
        )
    return found
