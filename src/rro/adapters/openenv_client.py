"""Environments behind an OpenEnv server: `environment.name = "openenv"`.

Talks through OpenEnv's own client, one session an episode. Knows no environment; of a server of
rro's it also uses the snapshots."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Literal

from pydantic import Field

from rro.adapters.parts import command, function, only_text, required, slug
from rro.config import Section
from rro.environments.base import Benchmark, Environment
from rro.environments.coroutines import settled
from rro.errors import RroError, UsageError, reason_of
from rro.types import Message, StepResult, Task

# What a server of rro's puts into an answer's metadata, beside the environment's `info`.
_OWN_METADATA = {"task", "snapshots", "snapshot", "truncated_reward", "invalid"}
WAITS = (0.5, 1.0, 2.0, 4.0)
"""Seconds between attempts to reach a server."""


class OpenEnvOptions(Section):
    """An environment behind an OpenEnv server, which is running already."""

    url: str = "http://127.0.0.1:8000"
    """Its address."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of each `reset`."""
    instruction: str = ""
    """What stands above the first observation."""
    field: str | None = None
    """The field of an action that holds the text of a message. Default: the only required text
    field, as the server describes its actions."""
    act: str | None = None
    """`module:function` that makes an action instead: called with the text of a message, it returns
    a dictionary, or raises ValueError for a text that is no action."""
    observe: str | None = None
    """`module:function` that writes an observation, a dictionary, as text. Default: its only text,
    else all of it as JSON."""
    outcome: Literal["last", "return"] = "last"
    """What the reward of an episode is: the last reward, or the sum of all."""
    train_tasks: int = Field(200, ge=0)
    """Tasks of the split `train` where the server does not list its own: one for each seed from
    `first_seed` on."""
    test_tasks: int = Field(100, ge=0)
    """Tasks of the split `test`, with the seeds after those."""
    first_seed: int = Field(0, ge=0)
    """Seed of the first task."""
    max_steps: int = Field(20, ge=1)
    """Actions an episode may take where a recipe does not say."""
    success_reward: float = 1.0
    """The outcome from which on an episode is a success."""
    reward_range: tuple[float, float] = (0.0, 1.0)
    """What outcomes lie between. Only adaptive exploration needs it."""
    timeout: float = Field(60.0, gt=0)
    """Seconds to wait for each answer."""


class OpenEnvBenchmark(Benchmark):
    """The tasks of a server. Raises UsageError where none answers at the address, or where its
    actions are no single text."""

    name = "openenv"

    def __init__(self, options: OpenEnvOptions) -> None:
        self.options, self._openenv = options, required("openenv.core", "openenv")
        self._act, self._observe = function(options.act), function(options.observe)
        self.max_steps, self.success_reward = options.max_steps, options.success_reward
        self.reward_range = options.reward_range
        self._field = options.field or ("" if self._act else self._text_field())
        self._snapshots = self._probe()

    def tasks(self, split: str) -> Sequence[Task]:
        """The server's own tasks of a split, or one for each seed where it lists none. Raises
        UsageError where no server answers."""
        name = self.served_name
        try:
            listed = self._known(f"/{name}/tasks", {"split": split})["tasks"]
            return [
                Task(_id_of(task) or f"{slug(name)}-{split}-{n}", {"split": split, "index": n})
                for n, task in enumerate(listed)
            ]
        except (LookupError, ValueError, TypeError):
            return self._seeds(split)

    def make(self) -> Environment:
        return SnapshotSession(self) if self._snapshots else Session(self)

    def action_of(self, message: Message) -> str:
        return message.content if self._act else command(message.content)

    def provenance(self) -> Mapping[str, Any]:
        return {"environment": self.served_name, **self.options.model_dump(mode="json")}

    @property
    def served_name(self) -> str:
        """The environment's name, as the server says it; empty where it does not. Raises UsageError
        where no server answers."""
        try:
            return str(self._known("/list_environments")[0])
        except (LookupError, ValueError, TypeError):
            return ""

    def connect(self) -> Any:
        """A client of OpenEnv's, not connected yet."""
        return self._openenv.GenericEnvClient(
            base_url=self.options.url, message_timeout_s=self.options.timeout
        )

    def action(self, text: str) -> dict[str, Any]:
        """The action that a message stands for. Raises ValueError for one that is none."""
        return dict(self._act(text)) if self._act else {self._field: text}

    def text(self, observation: Mapping[str, Any]) -> str:
        """An observation for the agent."""
        if self._observe:
            return str(self._observe(observation))
        return only_text({k: v for k, v in observation.items() if k != "metadata"})

    def _seeds(self, split: str) -> list[Task]:
        first = self.options.first_seed
        train, test = self.options.train_tasks, self.options.test_tasks
        seeds = {"train": range(train), "test": range(train, train + test)}
        if split not in seeds:
            raise UsageError(f"openenv has no split {split!r}: choose one of train, test")
        return [Task(f"seed-{first + n}", {"seed": first + n}) for n in seeds[split]]

    def _text_field(self) -> str:
        try:
            schema = self._ask("/schema")["action"]
            fields, needed = schema.get("properties", {}), schema.get("required", [])
            texts = [name for name in needed if fields[name].get("type") == "string"]
        except OSError as error:
            raise self._absent(error) from error
        except (LookupError, ValueError, TypeError, AttributeError):
            texts = []
        if len(texts) != 1:
            raise UsageError(
                f"the actions at {self.options.url} are no single text: set "
                "environment.options.field, or name a function in environment.options.act"
            )
        return str(texts[0])

    def _probe(self) -> bool:
        """Whether the server has rro's snapshots."""

        async def ask() -> bool:
            client = self.connect()
            try:
                await client.connect()
                result = await client.reset(**{**self.options.arguments, "seed": 0})
                return bool((result.metadata or {}).get("snapshots"))
            finally:
                await client.close()

        try:
            asked: Any = ask()
            return bool(settled(asked))
        except Exception as error:
            raise UsageError(f"the server at {self.options.url} does not reset: {error}") from error

    async def connected(self, client: Any) -> None:
        """Connect a client. Raises RroError, which ends a run, where after some attempts no server
        answers at all; otherwise what the client raises, for example where no session is free."""
        for wait in (*WAITS, None):
            try:
                await client.connect()
                return
            except Exception as error:
                gone = await asyncio.to_thread(self._gone)
                if gone is None:
                    raise
                if wait is None:
                    raise RroError(
                        f"the OpenEnv server at {self.options.url} no longer answers "
                        f"({reason_of(gone)}): start it again, and resume"
                    ) from error
            await asyncio.sleep(wait)

    def _gone(self) -> OSError | None:
        """Why no server answers at all; None where one does."""
        try:
            self._ask("/schema")
        except (urllib.error.HTTPError, ValueError):
            return None
        except OSError as error:
            return error
        return None

    def _known(self, path: str, question: Any = None) -> Any:
        """As `_ask`; LookupError where a server answers that it has no such thing. Raises
        UsageError where none answers, or its answer is an error of its own."""
        try:
            return self._ask(path, question)
        except urllib.error.HTTPError as error:
            if error.code < 500 or error.code == HTTPStatus.NOT_IMPLEMENTED:
                raise LookupError(path) from error
            raise UsageError(f"{self.options.url} answers {path} with {error}") from error
        except OSError as error:
            raise self._absent(error) from error

    def _absent(self, error: OSError) -> UsageError:
        return UsageError(
            f"no OpenEnv server answers at {self.options.url} ({error}): start it, or set "
            "environment.options.url"
        )

    def _ask(self, path: str, question: Any = None) -> Any:
        body = None if question is None else json.dumps(question).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.options.url.rstrip("/") + path, body, headers)
        with urllib.request.urlopen(request, timeout=self.options.timeout) as answer:
            return json.load(answer)


class Session(Environment):
    """An episode in a session of its own. Coroutines, as OpenEnv's client is."""

    keeps = False

    def __init__(self, benchmark: OpenEnvBenchmark) -> None:
        self._benchmark, self._client = benchmark, benchmark.connect()
        self._total = self._last = 0.0
        self._metadata: Mapping[str, Any] = {}

    async def reset(self, task: Task, seed: int = 0) -> Sequence[Message]:
        await self._benchmark.connected(self._client)
        given = {"seed": seed % 2**31, **self._benchmark.options.arguments, **task.data}
        result = await self._client.reset(**given, **({"keep": True} if self.keeps else {}))
        self._total = self._last = 0.0
        self._metadata = result.metadata or {}
        return self._opening(result.observation)

    async def step(self, action: Message) -> StepResult:
        try:
            made = self._benchmark.action(action.content)
        except ValueError as error:
            return StepResult(str(error), invalid=True)
        if self.keeps:
            made["metadata"] = {"keep": True}
        result = await self._client.step(made)
        self._metadata = result.metadata or {}
        done = bool(result.done)
        if done and result.reward is None:  # so does NaN arrive
            raise ValueError("the last step has no reward: the outcome is missing")
        self._last = 0.0 if result.reward is None else float(result.reward)
        self._total += self._last
        reward = self._outcome() if done else self._last
        text = self._benchmark.text(result.observation)
        invalid = bool(self._metadata.get("invalid"))
        return StepResult(text, reward, done, invalid, _info(self._metadata))

    def truncated_reward(self) -> float:
        return float(self._metadata.get("truncated_reward", self._outcome()))

    async def close(self) -> None:
        await self._client.close()

    def _outcome(self) -> float:
        return self._last if self._benchmark.options.outcome == "last" else self._total

    def _opening(self, observation: Mapping[str, Any]) -> list[Message]:
        above, listed = self._benchmark.options.instruction, observation.get("messages")
        if isinstance(listed, list) and listed and self.keeps:
            return [Message(message["role"], message["content"]) for message in listed]
        return [Message("user", f"{above}\n\n{self._benchmark.text(observation)}".strip())]


class SnapshotSession(Session):
    """The same at a server of rro's, which keeps snapshots under names."""

    keeps = True

    def snapshot(self) -> tuple[str, float]:
        name = self._metadata.get("snapshot")
        if not isinstance(name, str):
            raise ValueError("the server kept no snapshot")
        return name, self._total

    async def restore(self, snapshot: tuple[str, float]) -> None:
        name, self._total = snapshot
        await self._benchmark.connected(self._client)
        result = await self._client.reset(snapshot=name, keep=True)
        self._metadata = result.metadata or {}


def open_openenv(options: OpenEnvOptions) -> OpenEnvBenchmark:
    """Open what a server offers, e.g. `open_openenv(OpenEnvOptions(url="http://..."))`."""
    return OpenEnvBenchmark(options)


def _info(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a server says of a step, without what servers of rro's say to this client."""
    said = {name: value for name, value in metadata.items() if name not in _OWN_METADATA}
    info = said.pop("info", {})
    return {**said, **(info if isinstance(info, Mapping) else {"info": info})}


def _id_of(task: Any) -> str:
    """The id in a server's description of a task; empty where it has none."""
    known = task.get("id") if isinstance(task, dict) else task
    return known if isinstance(known, str) else ""
