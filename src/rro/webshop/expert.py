"""A scripted buyer with the goal inside: it makes SFT data, and errs where it is told to.

It sees the shop as any agent does, through the conversation, and keeps nothing between calls: the
same messages and seeds give the same answer, so it can take over anywhere in an episode. It knows
the goal (product id, options) and no more."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rro.seeds import derive_seed
from rro.types import Completion, Message, SamplingParams, Source, Usage
from rro.webshop.environment import PREFIX, action_text, parse_action
from rro.webshop.goals import Goal
from rro.webshop.pages import SEPARATOR

PATIENCE = 5  # result pages before it searches anew
_PAGE_LINE = re.compile(r"Page (\d+) \(Total results: (\d+)\)")


@dataclass
class _Visit:
    """What the conversation so far says: the page now, how often was searched, which product is
    open, what was clicked on it."""

    kind: str = "unknown"
    parts: list[str] = field(default_factory=list)
    searches: int = 0
    opened: str = ""
    clicks: list[str] = field(default_factory=list)


class WebShopExpert:
    """Searches, pages on until the goal's product is shown, opens it, clicks the goal's options,
    and buys.

    With probability `noise` it errs at a choice: vaguer keywords, another product, an option left
    out or mistaken, buying early; a wrong product it notices with probability 1 - noise."""

    def __init__(self, goal: Goal, query: str, noise: float = 0.0, seed: int = 0) -> None:
        """`query`: the kind of product, as the instruction words it."""
        self.name = f"webshop-expert(noise={noise:g})"
        self._goal, self._query, self._noise, self._seed = goal, query, noise, seed

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """`n` answers; `params` do not matter."""
        history = "\x1e".join(message.content for message in messages)
        visit = _read(messages)
        completions = []
        for number in range(n):
            chance = random.Random(derive_seed("webshop expert", self._seed, seed, number, history))
            thought, action = self._decide(visit, chance)
            message = Message("assistant", f"Thought: {thought}\nAction: {action}", Source.EXPERT)
            completions.append(Completion(message, "stop", self.name, Usage(policy_calls=1)))
        return completions

    async def close(self) -> None:
        """Nothing is held."""

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
        """Kind and options first; then, and where people word the kind otherwise, the instruction;
        then the attributes."""
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
        """The goal's options that the page has and that come after the last one dealt with, rightly
        or wrongly."""
        wanted = [value for value in self._goal.option_values() if value.strip() in visit.parts]
        for click in visit.clicks:
            wanted = wanted[wanted.index(click) + 1 :] if click in wanted else wanted[1:]
        return wanted


def _open(asin: str) -> tuple[str, str]:
    return f"{asin} fits the instruction, so I open it.", f"click[{asin}]"


def _pick(value: str) -> tuple[str, str]:
    return f"The instruction asks for {value}, so I choose it.", f"click[{value}]"


def _read(messages: Sequence[Message]) -> _Visit:
    """Follow the conversation: which product is open, and what was clicked on it since."""
    visit = _Visit()
    action: tuple[str, str] | None = None
    for message in messages:
        if message.role == "assistant":
            action = parse_action(action_text(message.content) or "")
            continue
        if not message.content.startswith(PREFIX):
            continue  # the opening instruction, or a complaint: the page stays
        parts = message.content.removeprefix(PREFIX).split(SEPARATOR)
        if action and parts != visit.parts:
            _follow(visit, *action)
        elif action and visit.kind == "item" and action[1] in visit.parts:
            visit.clicks.append(action[1])  # a chosen option leaves the page as it was
        visit.kind, visit.parts, action = _kind(parts), parts, None
    return visit


def _follow(visit: _Visit, word: str, argument: str) -> None:
    """Account for an action that led to another page."""
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
    """Number of the page, total results, and the ids shown: id, title and price stand in a row."""
    line = next(match for part in parts if (match := _PAGE_LINE.fullmatch(part)))
    rows = parts[parts.index("Next >") + 1 :]
    return int(line[1]), int(line[2]), list(rows[::3])


def _values_beside(parts: Sequence[str], value: str, goal: Goal) -> list[str]:
    """Other values of the option that `value` belongs to, as far as the page tells: where the goal
    names its options, those up to the next name; else the neighbours."""
    title = next((n for n, part in enumerate(parts) if part.startswith("Price: ")), len(parts)) - 1
    place = parts.index(value.strip())
    names = {option[0].strip() for option in goal.options if not isinstance(option, str)}
    if not names:
        return [part for part in parts[max(4, place - 1) : min(title, place + 2)] if part != value]
    first = max((n + 1 for n in range(place) if parts[n] in names), default=place)
    last = next((n for n in range(place, title) if parts[n] in names), title)
    return [part for part in parts[first:last] if part != value]
