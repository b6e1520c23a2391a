"""Games of Microsoft's TextWorld: `environment.name = "textworld"`.

A task is a game file that TextWorld's `tw-make` wrote. Knows no game by name."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rro.adapters.parts import Copied, command, named, required, slug
from rro.config import Section
from rro.environments.base import Agent, Benchmark, Environment
from rro.errors import DataError, UsageError
from rro.policies.scripted import ScriptedPolicy
from rro.types import Message, Source, StepResult, Task

# What a game says about its state. Its commands are known because TextWorld generated it.
_WANTED = ("score", "max_score", "won", "lost", "moves", "objective", "description", "inventory")
_INFO = ("score", "max_score", "won", "lost", "moves")
INSTRUCTION = "You play a text adventure, one command a turn. Write it as: Action: the command"


class TextWorldOptions(Section):
    """Games that TextWorld generated (`tw-make`)."""

    games: Path | None = None
    """Folder with the games: files that end with .z8 or .ulx, each beside the .json of the same
    name."""
    test_tasks: int = Field(0, ge=0)
    """How many of the games, the last ones by name, are the split `test`."""
    instruction: str = INSTRUCTION
    """What stands above the objective."""
    show_commands: bool = True
    """Whether each observation lists the commands that are possible."""
    max_steps: int = Field(50, ge=1)
    """Commands an episode may take where a recipe does not say."""
    fork: Literal["replay", "copy"] = "replay"
    """How episodes are forked: by replaying their commands, or by TextWorld's `copy` of the game at
    every step."""


class TextWorldBenchmark(Benchmark):
    """The games of a folder. The outcome is the share of the game's points, from 0 to 1. Raises
    DataError where the folder has no games."""

    name = "textworld"
    action_prefix = "Action: "

    def __init__(self, options: TextWorldOptions) -> None:
        self.options, self._package = options, required("textworld", "textworld")
        self.max_steps = options.max_steps
        if options.games is None:
            raise UsageError("environment.options.games is missing: set it to a folder with games")
        games = sorted(path for kind in ("z8", "ulx") for path in options.games.glob(f"*.{kind}"))
        if not games:
            raise DataError(f"{options.games} has no games: make some with tw-make")
        missing = [game for game in games if not game.with_suffix(".json").exists()]
        if missing:
            raise DataError(f"{missing[0]} has no {missing[0].stem}.json beside it")
        tasks = [Task(slug(game.stem), str(game)) for game in games]
        train = max(len(tasks) - options.test_tasks, 0)
        self._splits = {"train": tasks[:train], "test": tasks[train:]}

    def tasks(self, split: str) -> Sequence[Task]:
        if split not in self._splits:
            raise UsageError(f"textworld has no split {split!r}: choose one of train, test")
        return self._splits[split]

    def make(self) -> Environment:
        kind = CopyingGame if self.options.fork == "copy" else GameEnvironment
        return kind(self)

    def open(self, file: str) -> Any:
        """A new environment of TextWorld's for a game. Raises DataError for a file that is none."""
        asked = dict.fromkeys((*_WANTED, "admissible_commands"), True)
        infos = self._package.EnvInfos(**asked, extras=["walkthrough"])
        try:
            return self._package.start(file, infos)
        except Exception as error:
            raise DataError(f"{file} is not a game that TextWorld can play: {error}") from error

    def action_of(self, message: Message) -> str:
        return command(message.content).casefold()

    def expert(self, task: Task, noise: float, seed: int) -> Agent:
        """Follows the game's walkthrough, and takes a step twice where it errs."""
        walkthrough = self._walkthrough(task.data)

        def answer(messages: Sequence[Message], rng: random.Random) -> str:
            done = 0
            for message in messages:
                if message.role == "assistant" and done < len(walkthrough):
                    done += command(message.content) == walkthrough[done]
            place = min(done, len(walkthrough) - 1)
            errs = place > 0 and rng.random() < noise
            return f"Action: {walkthrough[place - errs]}"

        return ScriptedPolicy(answer, "expert", Source.EXPERT)

    def provenance(self) -> Mapping[str, Any]:
        options = self.options.model_dump(mode="json")
        # of the texts that TextWorld's grammars generate
        return {"textworld": version("textworld"), "license": "MIT", **options}

    @functools.cache  # noqa: B019, a benchmark lives as long as its process
    def _walkthrough(self, file: str) -> list[str]:
        game = self.open(file)
        try:
            steps = game.reset()["extra.walkthrough"]
        finally:
            game.close()
        if not steps:
            raise UsageError(f"{file} has no walkthrough: give expert trajectories in a file")
        return [str(step) for step in steps]


class GameEnvironment(Environment):
    """An episode. Only the commands that are possible where the player stands are carried out:
    what else an agent writes never reaches the interpreter, which is a program in C."""

    def __init__(self, benchmark: TextWorldBenchmark) -> None:
        self._benchmark = benchmark
        self._inner: Any = None
        self._state: Any = {}
        self._path: tuple[str, ...] = ()

    def reset(self, task: Task, seed: int = 0) -> Sequence[Message]:
        self.close()
        self._inner = self._benchmark.open(task.data)
        self._state, self._path = self._inner.reset(), (task.id,)
        above, state = self._benchmark.options.instruction, self._state
        text = f"{state['objective']}\n\n{state['description'].strip()}"
        return [Message("user", f"{above}\n\n{self._shown(text)}".strip())]

    def step(self, action: Message) -> StepResult:
        possible = self._state["admissible_commands"]
        index = named(command(action.content), possible)
        if index is None:
            text = self._shown("This command is not possible here.")
            return StepResult(text, self.truncated_reward(), invalid=True)
        self._state, _, done = self._inner.step(possible[index])
        self._path += (possible[index],)
        return StepResult(
            self._shown(_without_prompt(self._state["feedback"])),
            self.truncated_reward(),
            bool(done),
            info={name: self._state[name] for name in _INFO},
        )

    def truncated_reward(self) -> float:
        most = self._state.get("max_score") or 1
        return max(0.0, float(self._state.get("score") or 0) / most)

    def close(self) -> None:
        if self._inner is not None:
            self._inner.close()

    def _shown(self, text: str) -> str:
        if not self._benchmark.options.show_commands or self._state.get("done"):
            return text
        return f"{text}\n\nPossible commands: {', '.join(self._state['admissible_commands'])}"


class CopyingGame(GameEnvironment):
    """The same, forked by copies."""

    def snapshot(self) -> Copied:
        return Copied(self._path, (self._inner.copy(), self._state))

    def restore(self, snapshot: Copied) -> None:
        self.close()
        self._path = snapshot.path
        inner, self._state = snapshot.inner
        self._inner = inner.copy()


def open_textworld(options: TextWorldOptions) -> TextWorldBenchmark:
    """Open a folder of games, e.g. `open_textworld(TextWorldOptions(games=Path("games")))`."""
    return TextWorldBenchmark(options)


def _without_prompt(feedback: str) -> str:
    """What a game answers, without its prompt and the status line that follows that."""
    answer, prompt, _ = feedback.rpartition("\n>")
    return (answer if prompt else feedback).strip()
