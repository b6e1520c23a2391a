"""The records that all modules share: small and frozen, with no behaviour beyond arithmetic.

Nothing here knows of tokenisers, environments, files or training. Names are those of the RRO paper
(arXiv 2505.20737): history h_t, action a_t (one assistant message), observation o_t, outcome reward
R, process reward r(h_t, a_t)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import fmean
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from rro.jsonl import storable, strict_json

Count = Annotated[int, Ge(0)]
# How rro.codec reads the records that hold rewards and costs: NaN and infinity are refused.
FINITE = {"allow_inf_nan": False}
# A field that rro.codec leaves out of a record where it is empty.
SPARSE = {"sparse": True}
Role = Literal["system", "user", "assistant", "tool"]


class Source(StrEnum):
    """Who wrote a message. A field, never a position in a list (IPR and ETO infer it from the
    index)."""

    ENVIRONMENT = "environment"
    POLICY = "policy"
    EXPERT = "expert"
    PERSON = "person"


class StopReason(StrEnum):
    """Why an episode ended."""

    # The environment's answer was done.
    TERMINAL = "terminal"
    # The agent ran out of steps.
    STEP_LIMIT = "step_limit"
    # The next prompt did not fit the policy's context.
    CONTEXT = "context_overflow"
    # Network, memory, crash or timeout: the reward is missing, not 0.
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool in an assistant message. `arguments` is JSON text as the model wrote it: any
    text, which need not be valid. `id` is what the result names. `name` and `id` hold letters,
    digits, `_`, `-` and `.` alone (rro.tool_calls)."""

    name: str
    arguments: str
    id: str = ""

    def __post_init__(self) -> None:
        if not self.arguments.isascii():
            object.__setattr__(self, "arguments", storable(self.arguments))

    def values(self) -> dict[str, Any] | None:
        """The arguments by name; None where they are no valid JSON object."""
        try:
            values = strict_json(self.arguments)
        except ValueError:
            return None
        if not isinstance(values, dict):
            return None
        # Escapes such as \\ud800 may give half a character.
        whole = storable(json.dumps(values, ensure_ascii=False))
        plain: dict[str, Any] = json.loads(whole)
        return plain

    def chat(self) -> dict[str, Any]:
        """The form that chat templates and TRL take. Arguments that are no JSON object become the
        object {"invalid": text}."""
        values = self.values()
        if values is None:
            values = {"invalid": self.arguments}
        call: dict[str, Any] = {
            "type": "function",
            "function": {"name": self.name, "arguments": values},
        }
        return {"id": self.id, **call} if self.id else call


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message. `token_ids` are those that the policy sampled, end-of-turn token included,
    if its backend reports them: prompts and training reuse them, so that training sees what was
    sampled.

    `thought` is what an assistant thought before it answered: the environment gets `content`, not
    the thought. `tool_calls` are an assistant's, `content` is then what it wrote beside them. A
    message of the role "tool" is the result of the call with the name `name` and the id
    `tool_call_id`. `tools` is the JSON list of the schemas that a conversation offers; its first
    message holds it."""

    role: Role
    content: str
    source: Source = Source.ENVIRONMENT
    token_ids: tuple[Count, ...] | None = None
    tool_calls: tuple[ToolCall, ...] = field(default=(), metadata=SPARSE)
    tool_call_id: str = field(default="", metadata=SPARSE)
    name: str = field(default="", metadata=SPARSE)
    tools: str = field(default="", metadata=SPARSE)
    thought: str = field(default="", metadata=SPARSE)

    def __post_init__(self) -> None:
        for name in ("content", "thought"):
            if not (text := getattr(self, name)).isascii():
                object.__setattr__(self, name, storable(text))

    def chat(self) -> dict[str, Any]:
        """The {"role", "content"} form that chat templates, TRL and servers take, with the keys
        "tool_calls", "reasoning_content" (the thought), or "name" and "tool_call_id" where the
        message has them."""
        row: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.thought:
            row["reasoning_content"] = self.thought
        if self.tool_calls:
            row["tool_calls"] = [call.chat() for call in self.tool_calls]
        if self.name:
            row["name"] = self.name
        if self.tool_call_id:
            row["tool_call_id"] = self.tool_call_id
        return row

    @property
    def text(self) -> str:
        """The content, and each call in a line such as `run_sql({"query": "SELECT 1"})`: all that
        tells one message from another."""
        if not self.tool_calls:
            return self.content
        calls = (f"{call.name}({call.arguments})" for call in self.tool_calls)
        return "\n".join((*((self.content,) if self.content else ()), *calls))


@dataclass(frozen=True, slots=True)
class Usage:
    """What something cost; adds up. `policy_calls` counts sampled completions, `prompt_tokens`
    whole prompts, `cached_tokens` the part of them that a backend did not compute again,
    `generated_tokens` all sampled tokens, `thought_tokens` those of them that were thoughts,
    `seconds` wall time, `cost` money by the recipe's price table."""

    __pydantic_config__: ClassVar = FINITE

    policy_calls: Count = 0
    prompt_tokens: Count = 0
    cached_tokens: Count = 0
    generated_tokens: Count = 0
    environment_steps: Count = 0
    seconds: Annotated[float, Ge(0)] = 0.0
    cost: Annotated[float, Ge(0)] = 0.0
    thought_tokens: Count = field(default=0, metadata=SPARSE)

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.policy_calls + other.policy_calls,
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.generated_tokens + other.generated_tokens,
            self.environment_steps + other.environment_steps,
            self.seconds + other.seconds,
            self.cost + other.cost,
            self.thought_tokens + other.thought_tokens,
        )


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to draw one assistant message. `temperature` 0 is greedy. `stop` strings end a message
    and are not part of it. `max_new_tokens` bounds the message, the end-of-turn token included;
    `max_thought_tokens` its thought, which ends the message there, and `max_answer_tokens` what
    follows the thought (None: no limit of their own)."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    max_thought_tokens: int | None = None
    max_answer_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled assistant message. `logprobs` holds one natural-log probability per token of
    `message.token_ids`, under the model at temperature 1, if they were asked for (None if a server
    left out some of them). `finish` "context" means that the prompt left no room: the message is
    empty and must not be acted on. "thought": the message ended inside a thought, at a limit or by
    the model itself, so it says nothing: its content is empty, which the environment answers as any
    other action."""

    message: Message
    finish: Literal["stop", "length", "context", "thought"]
    policy: str
    usage: Usage = field(default_factory=Usage)
    logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One instruction of a benchmark. `data` is what its environment needs to reset to it."""

    id: str
    data: Any = None


@dataclass(frozen=True, slots=True)
class StepResult:
    """An environment's answer to one action. `invalid` marks an action that it cannot carry out.
    `results`: the answer to each tool call of the action, in order, where it has several. `info`:
    whatever else there is to know of the step; recorded, not shown to the agent."""

    observation: str
    reward: float = 0.0
    done: bool = False
    invalid: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)
    results: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of an episode: action a_t and what the environment answered.

    `logprobs` are the action's, one a token, where the policy reported them. `state` names the
    environment's state after the step, where snapshots were kept: equal for equal states of one
    task, empty where the episode ended or nothing is known. `results`: as in `StepResult`. `info`:
    what the environment said beside the observation, as plain JSON values
    (rro.environments.info)."""

    __pydantic_config__: ClassVar = FINITE

    action: Message
    observation: str
    reward: float
    done: bool
    invalid: bool = False
    logprobs: tuple[float, ...] | None = None
    state: str = ""
    results: tuple[str, ...] = field(default=(), metadata=SPARSE)
    info: Mapping[str, Any] = field(default_factory=dict, metadata=SPARSE, hash=False)

    def replies(self) -> tuple[Message, ...]:
        """The messages that follow the action: the user's with the observation, or the result of
        each tool call."""
        calls = self.action.tool_calls
        if not calls:
            return (Message("user", self.observation),)
        return tuple(
            Message("tool", text, tool_call_id=call.id, name=call.name)
            for call, text in zip(calls, self.results or (self.observation,), strict=True)
        )


@dataclass(frozen=True, slots=True)
class Trajectory:
    """An episode from `opening` (the messages before the first action) to its end.

    `reward` is the outcome reward R, or None if the episode failed (missing, never 0). A trajectory
    that was forked in the middle of an episode has the history up to there as its `opening`."""

    __pydantic_config__: ClassVar = FINITE

    task: str
    opening: tuple[Message, ...]
    steps: tuple[Step, ...]
    reward: float | None
    stop: StopReason
    policy: str
    seed: int
    usage: Usage = field(default_factory=Usage)
    error: str | None = None

    def messages(self) -> tuple[Message, ...]:
        """The whole conversation, without the last observation of a finished episode."""
        turns: list[Message] = list(self.opening)
        for step in self.steps:
            turns.append(step.action)
            if not step.done:
                turns += step.replies()
        while self.steps and turns[-1].role != "assistant":
            turns.pop()
        return tuple(turns)


@dataclass(frozen=True, slots=True)
class ProcessReward:
    """r(h_t, a_t): the mean outcome of Monte-Carlo rollouts, or the outcome itself where the action
    ended the episode (`exact`). `policy` names the model whose rollouts they are. Failed
    rollouts are not among `outcomes`.

    `predicted` is what a process reward model expected, where it counts beside the rollouts: as
    much as `weight` outcomes."""

    __pydantic_config__: ClassVar = FINITE

    outcomes: tuple[float, ...]
    policy: str
    exact: bool = False
    predicted: float | None = field(default=None, metadata=SPARSE)
    weight: Annotated[float, Ge(0)] = field(default=0.0, metadata=SPARSE)

    def __post_init__(self) -> None:
        if not self.outcomes:
            raise ValueError(
                "a process reward needs at least one outcome; a failed one is missing, not 0"
            )

    @property
    def mean(self) -> float:
        """To 12 decimals: fmean([r] * 5) misses r by a unit in the last place for one r in eight,
        and such a difference is neither a rise nor a preference."""
        if self.predicted is None:
            return round(fmean(self.outcomes), 12)
        total = self.weight * self.predicted + sum(self.outcomes)
        return round(total / (self.weight + self.n), 12)

    @property
    def n(self) -> int:
        """The number of outcomes."""
        return len(self.outcomes)


PairKind = Literal["step", "continuation", "trajectory"]


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Chosen and rejected answers under one shared prompt h_t. `kind` says what the sides are: one
    assistant message ("step"), the rest of an episode from there ("continuation"), or a whole
    episode ("trajectory"). `credibility` is the probability that chosen is worth more than
    rejected, and `gap` the expected difference of their values, if the credit computes them: the
    difference of the two process rewards is larger than that on average, as pairs are kept because
    of it. `committed`: whether the chosen action lies on the tree's chosen trajectory, if it is one
    action."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    task: str
    step: int
    chosen_reward: ProcessReward
    rejected_reward: ProcessReward
    strategy: str
    kind: PairKind = "step"
    iteration: int = 0
    credibility: float | None = None
    gap: float | None = None
    committed: bool | None = None


@dataclass(frozen=True, slots=True)
class StepLabel:
    """An action with its process reward: what a process reward model learns from.

    `prompt` is the history h_t, `step` the number of the action in its episode, from 1. `reward` is
    r(h_t, a_t), `before` r(h_{t-1}, a_{t-1}), None where it is unknown. `label`: whether the action
    is a good one, by what the credit says. `node`: the tree's node that the action led to, or where
    the rollout began whose step it is (`in_rollout`); `committed`: whether the action lies on the
    chosen trajectory. `interval`: where the value lies with 95 % confidence."""

    prompt: tuple[Message, ...]
    action: Message
    task: str
    step: int
    reward: ProcessReward
    before: ProcessReward | None
    label: bool
    strategy: str = ""
    iteration: int = 0
    node: str = ""
    in_rollout: bool = False
    committed: bool = False
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class WeightedEpisode:
    """A sampled episode, or one step of it, with an advantage for each of its messages: what a
    policy gradient learns from.

    `messages`: the opening and the steps, ending with the last action. `advantages`: one for each
    message; None for a message that was not sampled here and carries no loss. `reward`: the
    outcome; `success`: whether it reached the benchmark's success reward. `logprobs`: the
    sampler's, one natural-log probability for each of a message's `token_ids`; None for a message
    without them, or where none were kept."""

    task: str
    messages: tuple[Message, ...]
    advantages: tuple[float | None, ...]
    reward: float
    success: bool
    logprobs: tuple[tuple[float, ...] | None, ...] | None = None
