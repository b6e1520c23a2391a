"""The environment: one visit to the shop, driven by `search[...]` and `click[...]`.

The format of the conversation is that of ETO and IPR: a message with the rules, answered by "OK",
then observations. The action is the part of an answer after its first "Action: ", as in their
code: whatever an agent writes after it (an observation that it made up, a second action) does not
count. No answer of an agent raises; an invalid action leaves the state unchanged. (The original
raises for some of them and no longer works afterwards.) Knows nothing of files or search ranking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rro.environments.base import Environment
from rro.environments.tools import Tool, carry_out
from rro.errors import UsageError
from rro.seeds import derive_seed
from rro.types import Message, StepResult, Task, ToolCall
from rro.webshop.analysis import QueryError
from rro.webshop.pages import SECTIONS, Page, Pages, Session, address_page
from rro.webshop.reward import purchase_reward

INSTRUCTION = """\
You are buying a product in a web shop for someone else. Their instruction stands at the top of \
every page. In each turn you see the text of the current page, its parts separated by [SEP], and \
you answer with one thought and one action.
Two actions exist:
search[keywords] looks for products.
click[name] presses a button, opens a product by its id, or chooses an option; the name must \
stand on the page.
Open a product that fits, choose the options that the instruction asks for, then click[Buy Now]. \
You have at most ten turns.
Write exactly in this form:
Thought: your reasoning
Action: the action"""
TOOL_INSTRUCTION = """\
You are buying a product in a web shop for someone else. Their instruction stands at the top of \
every page. In each turn you see the text of the current page, its parts separated by [SEP], and \
you call one tool: search looks for products; click presses a button, opens a product by its id, \
or chooses an option.
Open a product that fits, choose the options that the instruction asks for, then click Buy Now. \
You have at most ten turns."""
ACKNOWLEDGEMENT = "OK"
PREFIX = "Observation:\n"
INVALID_FORMAT = "Observation: Invalid format. The input must contains 'Action: '"
ACTION_MARK = "Action: "


def action_text(answer: str) -> str | None:
    """The text after the first "Action: " of an agent's answer, or None."""
    _, mark, action = answer.strip().partition(ACTION_MARK)
    return action if mark else None


def parse_action(action: str) -> tuple[str, str] | None:
    """Split `word[argument]` into word and lower-cased argument. None for anything else.

    Equivalent to the original's greedy `(.+)\\[(.+)\\]` on the first line, but in linear time: the
    argument reaches from the last bracket that opens a non-empty one to the line's last closing
    bracket.
    """
    line = action.partition("\n")[0]
    end = line.rfind("]")
    start = line.rfind("[", 1, max(1, end - 1))
    return None if start < 0 else (line[:start], line[start + 1 : end].lower())


def actions_of(message: Message) -> list[tuple[str, str] | None]:
    """What an agent's message does, as `parse_action` says it; of each tool call where it has
    some."""
    if not message.tool_calls:
        return [parse_action(action_text(message.content) or "")]
    return [_called(call) for call in message.tool_calls]


def _called(call: ToolCall) -> tuple[str, str] | None:
    argument = (call.values() or {}).get({"search": "query", "click": "element"}.get(call.name, ""))
    return (call.name, argument.lower()) if isinstance(argument, str) else None


class WebShopEnvironment(Environment):
    """One visit to the shop of `pages`.

    `instruction` is the opening message with the rules; if it is "", neither it nor the "OK" is
    sent. With `all_or_nothing`, a purchase earns 1 where all fits, else 0. With `tools`, the agent
    calls them instead of writing text. The state is a `Session`, so snapshots cost nothing.
    """

    def __init__(
        self,
        pages: Pages,
        instruction: str = INSTRUCTION,
        *,
        all_or_nothing: bool = False,
        tools: bool = False,
    ) -> None:
        self._with_tools = tools
        self._pages, self._all_or_nothing = pages, all_or_nothing
        self._instruction = instruction
        self._enter(Session(goal=0))

    def reset(self, task: Task, seed: int = 0) -> Sequence[Message]:
        """Start a visit for `task`, whose data is the index of a goal.

        `seed` determines the random products that a search for "<r>" shows. Raises UsageError if
        there is no such goal.
        """
        goal = task.data
        if type(goal) is not int or not 0 <= goal < len(self._pages.goals.goals):
            raise UsageError(f"task {task.id}: {goal!r} is not the index of a WebShop goal")
        self._enter(Session(goal=goal, seed=seed))
        if self._with_tools:
            return (Message("user", f"{self._instruction}\n\n{self._page.text}".strip()),)
        observation = Message("user", PREFIX + self._page.text)
        if not self._instruction:
            return (observation,)
        return (
            Message("user", self._instruction),
            Message("assistant", ACKNOWLEDGEMENT),
            observation,
        )

    def step(self, action: Message) -> StepResult:
        """Carry out the action of an agent's answer. The reward, in [0, 1], comes with the
        purchase, which ends the episode."""
        if self._with_tools:
            return carry_out(self.tools(), action)
        text = action_text(action.content)
        if text is None:
            return StepResult(INVALID_FORMAT, invalid=True)
        result = self.act(text)
        return replace(result, observation=PREFIX + result.observation)

    def tools(self) -> Sequence[Tool]:
        """`search` and `click`, where the environment was made with tools."""
        return (self.search, self.click) if self._with_tools else ()

    def search(self, query: str) -> StepResult:
        """Look for products.

        Args:
            query: The keywords, separated by spaces.
        """
        return self._do("search", query.partition("\n")[0].lower())

    def click(self, element: str) -> StepResult:
        """Press a button, open a product by its id, or choose an option.

        Args:
            element: The name of what to click, as it stands on the page.
        """
        return self._do("click", element.lower())

    def snapshot(self) -> Session:
        """The whole state of the visit, an immutable value."""
        return self._session

    def restore(self, snapshot: Session) -> None:
        """Continue from a state that a visit to the same shop was in."""
        if snapshot != self._session:
            self._enter(snapshot)

    @property
    def page(self) -> Page:
        """The current page: its text and what can be clicked."""
        return self._page

    def act(self, action: str, random_seed: int | None = None) -> StepResult:
        """Carry out an action, without the thought; the observation is the page's text alone.

        `random_seed` replaces the seed of a search for "<r>", for replaying recordings. The `info`
        of a purchase has asin, options, price in dollars, and the parts of the reward (`account`).
        """
        parsed = parse_action(action)
        if parsed is None:
            return StepResult(self._page.text, invalid=True)
        return self._do(*parsed, random_seed)

    def _do(self, word: str, argument: str, random_seed: int | None = None) -> StepResult:
        try:
            after = self._next(word, argument, random_seed) if argument else None
            if after is None:
                return StepResult(self._page.text, invalid=True)
            if after.page == "done":
                return self._buy(after)
            self._enter(after)
        except QueryError:
            return StepResult(self._page.text, invalid=True)
        return StepResult(self._page.text)

    def _enter(self, session: Session) -> None:
        self._page = self._pages.render(session)
        self._session = session

    def _next(self, word: str, argument: str, random_seed: int | None) -> Session | None:
        """The state after an action, or None if the page does not allow it."""
        if word == "search":
            return self._results(tuple(argument.split(" ")), 1, random_seed)
        if word != "click" or argument == "search" or argument not in self._page.clickables:
            return None
        if argument in ("next >", "< prev"):
            turned = self._turn(argument, random_seed)
            if turned is not None:
                return turned
        return self._click(argument, self._page.clickables[argument])

    def _turn(self, button: str, random_seed: int | None) -> Session | None:
        """The state after "next >" or "< prev", by the page that the original takes itself to be
        on (see `address_page`)."""
        session = self._session
        match button, address_page(session):
            case "next >", "search_results":
                return self._results(session.keywords, session.number + 1, random_seed)
            case "< prev", "search_results":
                return self._results(session.keywords, session.number - 1, random_seed)
            case "< prev", "item_page":
                return self._results(session.keywords, session.number, random_seed)
            case "< prev", "item_sub_page":
                return replace(session, page="item_page", section="")
        return None

    def _click(self, button: str, named: str | None) -> Session:
        session = self._session
        if button == "buy now":
            return replace(session, page="done", section="")
        if button == "back to search":
            return Session(goal=session.goal, seed=session.seed, draws=session.draws)
        if button in SECTIONS:
            return replace(session, page="item_sub_page", section=SECTIONS[button])
        if session.page == "search_results":
            return replace(session, page="item_page", asin=named or "")
        options = {**dict(session.options), named or "": button}
        return replace(session, page="item_page", options=tuple(sorted(options.items())))

    def _results(self, keywords: tuple[str, ...], number: int, random_seed: int | None) -> Session:
        session = self._session
        draws, shown = session.draws, 0
        # "<r>" shows new products on every page, so every page is a draw.
        if keywords[0] == "<r>":
            draws += 1
            shown = (
                derive_seed("webshop <r>", session.seed, draws)
                if random_seed is None
                else random_seed
            )
        return Session(
            session.goal,
            "search_results",
            keywords,
            number,
            seed=session.seed,
            draws=draws,
            random_seed=shown,
        )

    def _buy(self, session: Session) -> StepResult:
        goals, catalogue = self._pages.goals, self._pages.catalogue
        price = goals.prices[session.asin]
        reward, account = purchase_reward(
            catalogue,
            catalogue[session.asin],
            goals.goals[session.goal],
            price,
            [value for _, value in session.options],
        )
        if self._all_or_nothing:
            reward = float(reward >= 1)
        self._enter(replace(session, reward=reward))
        info: Mapping[str, Any] = {
            "asin": session.asin,
            "options": dict(session.options),
            "price": price,
            "account": account,
        }
        return StepResult(self._page.text, reward, done=True, info=info)
