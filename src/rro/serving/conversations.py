"""What agents asked and what the policy answered, by conversation: token ids and log-probabilities
of every answer.

A conversation is what a client names, or else what continues one: a call whose messages begin with
those of an earlier call and its answer. Where an earlier answer comes back, it is the recorded
message, with the tokens that were sampled, so later prompts and the training see exactly those.
Knows neither HTTP nor policies."""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from pydantic import ValidationError

from rro.codec import first_problem, from_plain, to_plain
from rro.errors import DataError, RroError, UsageError
from rro.jsonl import strict_json
from rro.types import Completion, Message, SamplingParams, Source, WeightedEpisode

log = logging.getLogger(__name__)
Key = bytes


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an agent: its messages, the answer, its log-probabilities, and how it was drawn
    by which policy."""

    messages: tuple[Message, ...]
    answer: Message
    logprobs: tuple[float, ...] | None
    params: SamplingParams
    policy: str
    finish: str

    def continues(self, earlier: Call) -> bool:
        """Whether its messages hold the answer of `earlier`: that very one, not one of another
        call that says the same."""
        place = len(earlier.messages)
        return len(self.messages) > place and self.messages[place] is earlier.answer


@dataclass(slots=True)
class Conversation:
    """The calls under one id, in the order of their answers. An agent may follow several threads in
    one: a call that continues none begins another."""

    id: str
    calls: list[Call] = field(default_factory=list)

    def threads(self) -> list[Call]:
        """The last call of each thread."""
        return [
            call
            for number, call in enumerate(self.calls)
            if not any(later.continues(call) for later in self.calls[number + 1 :])
        ]

    def episodes(self, task: str, advantage: float, reward: float) -> list[WeightedEpisode]:
        """Each thread with `advantage` at every answer of the policy, each answer once: what a
        policy gradient learns from. None for what the policy did not say."""
        known = {id(call.answer): call.logprobs for call in self.calls}
        rows, used = list[WeightedEpisode](), set[int]()
        for call in self.threads():
            messages = (*call.messages, call.answer)
            own = [id(message) in known and id(message) not in used for message in messages]
            used |= {id(message) for message in messages}
            rows.append(
                WeightedEpisode(
                    task=task,
                    messages=messages,
                    advantages=tuple(advantage if mine else None for mine in own),
                    reward=reward,
                    success=False,
                    logprobs=tuple(
                        known[id(message)] if mine else None
                        for message, mine in zip(messages, own, strict=True)
                    ),
                )
            )
        return rows


def _keys(messages: Sequence[Message]) -> Iterator[Key]:
    """After each message, what it and those before it say."""
    digest = blake2b(digest_size=16)
    for message in messages:
        calls = [[call.name, call.arguments] for call in message.tool_calls]
        said = [message.role, message.content, calls, message.tools]
        digest.update(json.dumps(said).encode())
        yield digest.digest()


class _Beginnings:
    """The calls of one conversation by what their messages and answers say."""

    def __init__(self) -> None:
        self._calls: dict[Key, list[Call]] = {}

    def add(self, call: Call) -> Key:
        """Returns what the call with its answer says."""
        *_, key = _keys((*call.messages, call.answer))
        self._calls.setdefault(key, []).append(call)
        return key

    def recorded(
        self, messages: tuple[Message, ...], keys: Sequence[Key], *, exactly: bool = False
    ) -> tuple[Message, ...]:
        """The messages, with those of the longest call that they continue in place of their
        beginning. Where several calls said the same, as those of two agents in one conversation,
        they take turns. `exactly`: the tokens must be the same, too."""
        for length in range(len(keys), 0, -1):
            calls = self._calls.get(keys[length - 1], [])
            for place, call in enumerate(calls):
                beginning = (*call.messages, call.answer)
                if not exactly or beginning == messages[:length]:
                    calls.append(calls.pop(place))
                    return (*beginning, *messages[length:])
        return messages

    def __iter__(self) -> Iterator[Key]:
        return iter(self._calls)


class Conversations:
    """The conversations of a server. Thread-safe.

    At most `most` are kept in memory; the oldest are forgotten. `most_calls` limits the calls of
    one. `write` is given each call as a line of JSON."""

    def __init__(
        self, most: int = 10_000, most_calls: int = 500, write: Callable[[str], None] | None = None
    ) -> None:
        self._most, self._most_calls, self._write = most, most_calls, write
        self._kept: OrderedDict[str, Conversation] = OrderedDict()
        # Conversation ids that can go on from a key.
        self._open: dict[Key, list[str]] = {}
        self._beginnings: defaultdict[str, _Beginnings] = defaultdict(_Beginnings)
        self._lock, self._unnamed = threading.Lock(), 0
        # Nobody can guess it, and it differs in each server that appends to the same file.
        self._prefix = f"unnamed-{secrets.token_hex(8)}"

    def begin(self, name: str, messages: Sequence[Message]) -> tuple[str, tuple[Message, ...]]:
        """The conversation that a call belongs to, by `name`, or where that is empty by its
        messages; and the messages with the recorded answers in place of those that came back.
        Raises UsageError where the conversation has too many calls."""
        keys = list(_keys(messages))
        with self._lock:
            if not name:
                name = self._continued(keys) or self._new_name()
            conversation = self._kept.get(name)
            if conversation is None:
                conversation = self._kept[name] = Conversation(name)
                self._forget_oldest()
            self._kept.move_to_end(name)
            if len(conversation.calls) >= self._most_calls:
                raise UsageError(f"conversation {name} has {self._most_calls} calls already")
            return name, self._beginnings[name].recorded(tuple(messages), keys)

    def add(
        self,
        name: str,
        messages: tuple[Message, ...],
        completion: Completion,
        params: SamplingParams,
    ) -> None:
        """Record an answer; one of a conversation that is forgotten is only written."""
        call = Call(
            messages,
            replace(completion.message, source=Source.POLICY),
            completion.logprobs,
            params,
            completion.policy,
            completion.finish,
        )
        with self._lock:
            if self._write is not None:
                line = {"conversation": name, **to_plain(call)}
                self._write(json.dumps(line) + "\n")
            conversation = self._kept.get(name)
            if conversation is not None:
                conversation.calls.append(call)
                names = self._open.setdefault(self._beginnings[name].add(call), [])
                if name not in names:
                    names.append(name)

    def get(self, name: str) -> Conversation:
        """A conversation. Raises RroError where there is none."""
        with self._lock:
            if name not in self._kept:
                raise RroError(f"no conversation {name!r}")
            return self._kept[name]

    def take(self) -> dict[str, Conversation]:
        """All conversations by id, in the order of their last calls; they are forgotten here."""
        with self._lock:
            taken = dict(self._kept)
            self._kept.clear()
            self._open.clear()
            self._beginnings.clear()
            return taken

    def __len__(self) -> int:
        return len(self._kept)

    def _continued(self, keys: Sequence[Key]) -> str:
        """The conversation that these messages continue; empty where there is none. Where several
        came to the same place, they take turns."""
        for key in reversed(keys):
            if names := self._open.get(key):
                names.append(names.pop(0))
                return names[-1]
        return ""

    def _new_name(self) -> str:
        self._unnamed += 1
        return f"{self._prefix}-{self._unnamed}"

    def _forget_oldest(self) -> None:
        while len(self._kept) > self._most:
            name, _ = self._kept.popitem(last=False)
            for key in self._beginnings.pop(name, ()):
                self._open[key].remove(name)
                if not self._open[key]:
                    del self._open[key]


def read_recorded(lines: Iterator[str]) -> dict[str, Conversation]:
    """Conversations from the lines that a server wrote. A line that is no JSON, as of a server that
    was killed while it wrote, is left out, and told. Raises DataError for one that is no call."""
    found = dict[str, Conversation]()
    beginnings = defaultdict[str, _Beginnings](_Beginnings)
    for name, call in _recorded_calls(lines):
        messages = beginnings[name].recorded(
            call.messages, list(_keys(call.messages)), exactly=True
        )
        call = replace(call, messages=messages)
        beginnings[name].add(call)
        found.setdefault(name, Conversation(name)).calls.append(call)
    return found


def _recorded_calls(lines: Iterator[str]) -> Iterator[tuple[str, Call]]:
    """The calls of a record, each with the name of its conversation."""
    for number, line in enumerate(lines, 1):
        try:
            record: Any = strict_json(line)
        except ValueError as error:
            if line.strip():
                log.warning("line %d of the record is left out: not JSON: %s", number, error)
            continue
        name = record.pop("conversation", None) if isinstance(record, dict) else None
        try:
            if not isinstance(name, str):
                raise ValueError('it has no "conversation"')
            call = from_plain(Call, record)
            if call.logprobs is not None and len(call.logprobs) != len(call.answer.token_ids or ()):
                raise ValueError("it has not one log-probability for each token of its answer")
        except ValidationError as error:
            raise DataError(
                f"line {number} of the record is no call: {first_problem(error)}"
            ) from None
        except ValueError as error:
            raise DataError(f"line {number} of the record is no call: {error}") from None
        yield name, call
