"""The environment: one episode in ScienceWorld, driven by lines such as `pick up thermometer`.

The format of the conversation is that of ETO: a message with the rules, answered by "OK", then the
task and what is seen. The action is the line after an answer's first "Action: ". No answer of an
agent raises. Knows nothing of processes.
"""

from __future__ import annotations

from collections.abc import Sequence

from rro.environments.base import Environment
from rro.errors import RestoreError, UsageError
from rro.scienceworld.engine import Answer, Engine, Start
from rro.scienceworld.options import ScienceWorldOptions
from rro.scienceworld.pool import Engines
from rro.types import Message, StepResult, Task

INSTRUCTION = """\
You do a science experiment in a small world that is described to you. In each turn you see what \
your last action did, and you answer with one thought and one action.
Do what the task says, in its order: "focus on" tells that an object is the one the task asks for, \
and a wrong focus ends the experiment without success.
Write exactly in this form:
Thought: your reasoning
Action: the action
These actions exist, where OBJ is an object and LOC a place:"""
ACKNOWLEDGEMENT = "OK"
PREFIX = "Observation: "
ACTION_MARK = "Action:"
INVALID_FORMAT = "Observation: Invalid format. The input must contains 'Action: '"
NO_ACTION = "No known action matches that input."
# Characters of an action that are read; no action of the engine's has as many.
LONGEST_ACTION = 400


def action_text(answer: str) -> str | None:
    """The line after the first "Action:" of an agent's answer, or None."""
    _, mark, action = answer.partition(ACTION_MARK)
    return action.strip().partition("\n")[0].strip()[:LONGEST_ACTION] if mark else None


class ScienceWorldEnvironment(Environment):
    """An episode on the engines that all episodes share. What it needs to go on is the task and the
    actions so far, so an engine that it loses is replaced by playing them again."""

    blocking = True

    def __init__(self, engines: Engines, options: ScienceWorldOptions) -> None:
        self._engines, self._options = engines, options
        self._task = "", 0
        self._played: list[tuple[str, Answer]] = []
        self._start: Start | None = None

    def reset(self, task: Task, seed: int = 0) -> Sequence[Message]:
        """Start `task`, whose data is a task type and the number of a variation. Nothing is random,
        so `seed` has no effect. Raises UsageError if it is no such pair."""
        try:
            name, variation = task.data
            self._task = str(name), int(variation)
        except (TypeError, ValueError):
            raise UsageError(
                f"task {task.id}: {task.data!r} is not a task type and a variation"
            ) from None
        self._played, self._start = [], None
        with self._engines.lend(self) as engine:
            start = self._load(engine)
        return self._opening(start)

    def step(self, action: Message) -> StepResult:
        """Carry out an agent's answer. The reward of each step is the outcome if the episode ended
        there; `info` has the engine's score, from -100 to 100, and its number of moves."""
        line = action_text(action.content)
        if line is None:
            return StepResult(INVALID_FORMAT, self.truncated_reward(), invalid=True)
        with self._engines.lend(self) as engine:
            if engine.episode is not self:
                self._play_again(engine)
            answer = engine.step(line)
        self._played.append((line, answer))
        score = _percent(answer)
        # As the Python package ends an episode.
        done = answer.completed or score < 0 or answer.moves > self._options.move_limit
        return StepResult(
            PREFIX + answer.observation,
            self.truncated_reward(),
            done,
            answer.observation.startswith(NO_ACTION),
            {"score": score, "moves": answer.moves},
        )

    def truncated_reward(self) -> float:
        """The outcome so far, from 0 to 1."""
        scores = [_percent(answer) for _, answer in self._played]
        if not scores:
            scores = [_percent(self._start.answer)] if self._start else [0]
        best = self._options.score == "best"
        return max(0, max(scores) if best else scores[-1]) / 100

    def close(self) -> None:
        self._engines.release(self)

    def _opening(self, start: Start) -> list[Message]:
        rules = INSTRUCTION if self._options.system is None else self._options.system
        task = Message("user", f"{start.description}\n\n{start.answer.observation}".strip())
        if not rules:
            return [task]
        listed = ", ".join(line.strip() for line in start.actions.splitlines() if line.strip())
        opening = Message("user", f"{rules}\n{listed}")
        return [opening, Message("assistant", ACKNOWLEDGEMENT), task]

    def _load(self, engine: Engine) -> Start:
        engine.episode = self
        start = engine.load(*self._task, self._options.simplifications)
        if start.answer.observation.startswith("ERROR"):
            raise UsageError(f"ScienceWorld: {start.answer.observation.strip()}")
        if self._start not in (None, start):
            raise RestoreError(f"{'-'.join(map(str, self._task))}: the start differs on replay")
        self._start = start
        return start

    def _play_again(self, engine: Engine) -> None:
        self._load(engine)
        for number, (line, answer) in enumerate(self._played, 1):
            if engine.step(line) != answer:
                name = "-".join(map(str, self._task))
                raise RestoreError(f"{name}: the answer to step {number} differs on replay")


def _percent(answer: Answer) -> int:
    """The score as the Python package gives it."""
    return round(100 * answer.score)
