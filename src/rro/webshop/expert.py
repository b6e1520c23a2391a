"""A scripted expert that knows the goal: demonstrations for SFT, with mistakes if asked to.

It sees the shop only through the conversation, as any agent does, and keeps no state between calls:
the same messages and seeds give the same answer, so it can take over anywhere in an episode. Of the
shop it knows the goal (product id, options), nothing else.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rro.seeds import derive_seed
from rro.tool_calls import tool_calls
from rro.types import Completion, Message, SamplingParams, Source, Usage
from rro.webshop.environment import PREFIX, actions_of
from rro.webshop.goals import Goal
from rro.webshop.pages import SEPARATOR

# Pages of results that it looks through before it searches again.
PATIENCE = 5
_PAGE_LINE = re.compile(r"Page (\d+) \(Total results: (\d+)\)")


@dataclass
class _Visit:
    """What the conversation so far reveals of the visit."""

    kind: str = "unknown"
    """Kind of the current page: index, results, item or section."""
    parts: list[str] = field(default_factory=list)
    """Parts of the current page's text."""
    searches: int = 0
    """Number of searches so far."""
    opened: str = ""
    """Id of the product that was opened last."""
    clicks: list[str] = field(default_factory=list)
    """Options clicked on it since."""


class WebShopExpert:
    """Searches, turns pages until the goal's product is shown, opens it, clicks the goal's options,
    and buys.

    With probability `noise`, each choice is a mistake: vaguer keywords, another product, an option
    left out or confused, or buying too early. A wrong product is noticed with probability
    1 - noise. `seed` selects among its possible choices.
    """

    def __init__(
        self, goal: Goal, query: str, noise: float = 0.0, seed: int = 0, *, tools: bool = False
    ) -> None:
        """`query` is the kind of product that `goal` asks for. With `tools`, it calls them instead
        of writing text."""
        self._tools = tools
        self.name = f"webshop-expert(noise={noise:g})"
        self._goal, self._query, self._noise, self._seed = goal, query, noise, seed

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """`n` answers, as `Agent.sample`; `params` are ignored."""
        history = "\x1e".join(message.text for message in messages)
        visit = _read(messages)
        completions = []
        for number in range(n):
            chance = random.Random(derive_seed("webshop expert", self._seed, seed, number, history))
            thought, action = self._decide(visit, chance)
            message = self._written(thought, action)
            completions.append(Completion(message, "stop", self.name, Usage(policy_calls=1)))
        return completions

    def _written(self, thought: str, action: str) -> Message:
        if not self._tools:
            return Message("assistant", f"Thought: {thought}\nAction: {action}", Source.EXPERT)
        word, _, argument = action.removesuffix("]").partition("[")
        call = word, {"query" if word == "search" else "element": argument}, None
        return Message("assistant", thought, Source.EXPERT, tool_calls=tool_calls([call]))

    async def close(self) -> None:
        """Does nothing: the expert holds no resources."""

    def _decide(self, visit: _Visit, chance: random.Random) -> tuple[str, str]:
        errs = chance.random() < self._noise
        match visit.kind:
            case "results":
                return self._choose_product(visit, errs, chance)
            case "item":
                return self._choose_option(visit, errs, chance)
            case "section":
                return "I have read enough and go back to the product.", "click[< Prev]"
        return self._search(visit.searches, errs)

    def _search(self, searches: int, errs: bool) -> tuple[str, str]:
        """Search for kind and options first, later for the instruction and for kind and attributes.
        If the instruction does not contain the kind, start with the instruction."""
        instruction = self._goal.instruction.split(", and price lower")[0]
        words = [" ".join((self._query, *self._goal.option_values()))]
        words += [instruction, " ".join((self._query, *self._goal.attributes))]
        if self._query not in instruction.lower():
            words = [instruction, " ".join((*self._goal.attributes, *self._goal.option_values()))]
        keywords = self._query if errs else words[searches % len(words)]
        return f"I need {keywords}, so I search for that.", f"search[{keywords}]"

    def _choose_product(self, visit: _Visit, errs: bool, chance: random.Random) -> tuple[str, str]:
        page, total, products = _results(visit.parts)
        others = [asin for asin in products if asin != self._goal.asin]
        if errs and others:
            return _open(chance.choice(others))
        if self._goal.asin in products:
            return _open(self._goal.asin)
        if products and page < PATIENCE and page * len(products) < total:
            return "None of these fits, so I look at the next page.", "click[Next >]"
        return self._search(visit.searches, errs=False)

    def _choose_option(self, visit: _Visit, errs: bool, chance: random.Random) -> tuple[str, str]:
        if visit.opened != self._goal.asin and not visit.clicks and not errs:
            return "This is not what was asked for, so I go back.", "click[< Prev]"
        left = self._options_left(visit)
        if errs and left:
            values = _values_beside(visit.parts, left[0], self._goal)
            mistake = chance.choice(("early", "skip", "mistake") if values else ("early", "skip"))
            if mistake == "mistake":
                return _pick(chance.choice(values))
            left = left[1:] if mistake == "skip" else []
        return (
            _pick(left[0]) if left else ("It is what was asked for, so I buy it.", "click[Buy Now]")
        )

    def _options_left(self, visit: _Visit) -> list[str]:
        """The goal's options that are on the page and still to be clicked. A wrong click counts as
        having dealt with the next one."""
        wanted = [value for value in self._goal.option_values() if value.strip() in visit.parts]
        for click in visit.clicks:
            wanted = wanted[wanted.index(click) + 1 :] if click in wanted else wanted[1:]
        return wanted


def _open(asin: str) -> tuple[str, str]:
    return f"{asin} fits the instruction, so I open it.", f"click[{asin}]"


def _pick(value: str) -> tuple[str, str]:
    return f"The instruction asks for {value}, so I choose it.", f"click[{value}]"


def _read(messages: Sequence[Message]) -> _Visit:
    """Reconstruct the visit from the conversation."""
    visit = _Visit()
    action: tuple[str, str] | None = None
    for message in messages:
        if message.role == "assistant":
            action = actions_of(message)[0]
            continue
        if message.role != "tool" and not message.content.startswith(PREFIX):
            continue  # the rules, or a rejected answer: the page stays
        parts = message.content.removeprefix(PREFIX).split(SEPARATOR)
        if action and parts != visit.parts:
            _follow(visit, *action)
        elif action and visit.kind == "item" and action[1] in visit.parts:
            visit.clicks.append(action[1])  # a chosen option does not change the page
        visit.kind, visit.parts, action = _kind(parts), parts, None
    return visit


def _follow(visit: _Visit, word: str, argument: str) -> None:
    """Record an action that led to another page."""
    if word == "search":
        visit.searches += 1
    elif visit.kind == "results":
        visit.opened, visit.clicks = argument.upper(), []


def _kind(parts: Sequence[str]) -> str:
    if parts[0] == "WebShop":
        return "index"
    if any(_PAGE_LINE.fullmatch(part) for part in parts):
        return "results"
    return "item" if parts[-1] == "Buy Now" else "section"


def _results(parts: Sequence[str]) -> tuple[int, int, list[str]]:
    """Number of the page, number of results, and the product ids shown. A product takes three
    parts: id, title, price."""
    line = next(match for part in parts if (match := _PAGE_LINE.fullmatch(part)))
    rows = parts[parts.index("Next >") + 1 :]
    return int(line[1]), int(line[2]), list(rows[::3])


def _values_beside(parts: Sequence[str], value: str, goal: Goal) -> list[str]:
    """Other values of the option that `value` belongs to, as far as the page shows: those up to the
    next option's name if the goal names its options, else the neighbouring parts."""
    title = next((n for n, part in enumerate(parts) if part.startswith("Price: ")), len(parts)) - 1
    place = parts.index(value.strip())
    names = {option[0].strip() for option in goal.options if not isinstance(option, str)}
    if not names:
        return [part for part in parts[max(4, place - 1) : min(title, place + 2)] if part != value]
    first = max((n + 1 for n in range(place) if parts[n] in names), default=place)
    last = next((n for n in range(place, title) if parts[n] in names), title)
    return [part for part in parts[first:last] if part != value]
