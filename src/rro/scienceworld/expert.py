"""The expert of ScienceWorld: it repeats the gold path that the engine finds for a task.

It keeps no state between calls: the same messages and seeds give the same answer, so it can take
over anywhere in an episode. It does not look at observations.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from rro.scienceworld.environment import action_text
from rro.seeds import derive_seed
from rro.types import Completion, Message, SamplingParams, Source, Usage

_LOOK = "look around"


class GoldExpert:
    """Writes the next action of a gold path; what comes after its end is `look around`.

    With probability `noise`, an action is a mistake: one that the path has later, so that it comes
    too early. `seed` selects among them. `gold` gives the path, and may take seconds."""

    def __init__(
        self, gold: Callable[[], Sequence[str]], noise: float = 0.0, seed: int = 0
    ) -> None:
        self.name = f"scienceworld-expert(noise={noise:g})"
        self._gold, self._noise, self._seed = gold, noise, seed

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """`n` answers, as `Agent.sample`; `params` are ignored."""
        gold = await asyncio.to_thread(self._gold)
        rest = gold[_progress(messages, gold) :]
        history = "\x1e".join(message.text for message in messages)
        completions = []
        for number in range(n):
            chance = random.Random(
                derive_seed("scienceworld expert", self._seed, seed, number, history)
            )
            line = rest[0] if rest else _LOOK
            if len(rest) > 1 and chance.random() < self._noise:
                line = chance.choice(rest[1:])
            message = Message("assistant", f"Action: {line}", Source.EXPERT)
            completions.append(Completion(message, "stop", self.name, Usage(policy_calls=1)))
        return completions

    async def close(self) -> None:
        """Does nothing: the expert holds no resources."""


def _progress(messages: Sequence[Message], gold: Sequence[str]) -> int:
    """How many actions of the path the conversation has, in its order."""
    done = 0
    for message in messages:
        if message.role == "assistant" and done < len(gold):
            done += action_text(message.content) == gold[done]
    return done
