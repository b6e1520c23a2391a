"""Replays recordings of the original WebShop and compares: `rro verify webshop`.

docs/webshop.md describes the files. Of a recording only the original's input is used (goal,
actions, seeds of its random stream); all its output is compared.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from rro.environments.recordings import replay
from rro.errors import DataError
from rro.jsonl import read_bytes, strict_json
from rro.types import StepResult, Task
from rro.webshop.analysis import QueryError
from rro.webshop.catalogue import HITS, Catalogue, build_catalogue
from rro.webshop.environment import WebShopEnvironment
from rro.webshop.goals import GoalKind, GoalSet, draw_goals, with_state
from rro.webshop.pages import Pages
from rro.webshop.raw_files import load_raw


@dataclass
class Counts:
    """How much was replayed, and how much of it was equal. A start page that differs makes the
    first step unequal. `finals` are purchases."""

    episodes: int = 0
    steps: int = 0
    steps_equal: int = 0
    finals: int = 0
    finals_equal: int = 0
    searches: int = 0
    searches_equal: int = 0


def verify(
    data: Path, episodes: Path | None = None, search: Path | None = None, state: Sequence[Path] = ()
) -> dict[str, int]:
    """Replay recorded `episodes` and searches on the shop in the folder `data`; returns `Counts`.

    The files are JSON lines, plain or gzipped. A `state` file has the prices and goals of one seed;
    those of other seeds are drawn. An episode counts up to the first step at which the original
    raised. Raises DataError that names file and line for a record of another form.
    """
    shop = Replay(build_catalogue(load_raw(data)))
    for file in state:
        shop.add_state(file)
    if episodes is not None:
        replay(episodes, shop.episode, "WebShop")
    if search is not None:
        replay(search, shop.search, "WebShop")
    return asdict(shop.counts)


def run_verify(
    data: Path, episodes: Path | None = None, search: Path | None = None, state: Sequence[Path] = ()
) -> bool:
    """Run `verify` and print its counts as one line of JSON. True if everything was equal."""
    counts = verify(data, episodes, search, state)
    print(json.dumps(counts))
    return all(counts[kind] == counts[f"{kind}_equal"] for kind in ("steps", "finals", "searches"))


class Replay:
    """A shop on which recordings are replayed, and the counts so far."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.counts = Counts()
        self._catalogue = catalogue
        self._drawn: dict[tuple[GoalKind, int], GoalSet] = {}
        self._environments: dict[tuple[GoalKind, int, bool], WebShopEnvironment] = {}
        self._visited: dict[tuple[GoalKind, int, str], int] = {}

    def add_state(self, file: Path) -> None:
        """Use recorded prices and goals for their seed. Raises DataError if they do not fit."""
        try:
            state = strict_json(read_bytes(file))
            seed, count = state["seed"], len(state["goals"])
            kinds: tuple[GoalKind, ...] = get_args(GoalKind)
            fits = (kind for kind in kinds if len(self._goals(kind, 0).goals) == count)
            kind: GoalKind = next(fits, "synthetic")
            self._drawn[kind, seed] = with_state(self._goals(kind, seed), state, str(file))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"{file}: not a recording of prices and goals ({error!r})") from None

    def episode(self, record: Mapping[str, Any]) -> None:
        """Replay one episode and count its steps and purchases."""
        kind, seed = self._kind(record), record["seed"]
        environment = self._environment(kind, seed, record["show_attrs"])
        environment.reset(Task(str(record.get("ep")), self._goal(kind, record)))
        equal = _same_page(environment, record["obs0"], record["avail0"])
        finals = {final["step"]: final for final in record.get("finals", ())}
        self.counts.episodes += 1
        for number, step in enumerate(record["steps"]):
            if "exc" in step:
                break
            result = environment.act(step["a"], step.get("random_seed"))
            equal &= _same_answer(result, step) and _same_page(
                environment, step["obs"], step["avail"]
            )
            self.counts.steps += 1
            self.counts.steps_equal += equal
            equal = True
            if number in finals:
                self.counts.finals += 1
                self.counts.finals_equal += _same_final(result, finals[number])

    def search(self, record: Mapping[str, Any]) -> None:
        """Repeat one search and compare the product ids, in order."""
        try:
            hits = self._catalogue.index.search(record["q"], HITS)
        except QueryError:
            hits = []
        ids = [self._catalogue.products[position].asin for position, _ in hits]
        self.counts.searches += 1
        self.counts.searches_equal += ids == [id for id, _ in record["hits"]]

    def _goals(self, kind: GoalKind, seed: int) -> GoalSet:
        if (kind, seed) not in self._drawn:
            self._drawn[kind, seed] = draw_goals(self._catalogue, kind, seed)
        return self._drawn[kind, seed]

    def _environment(self, kind: GoalKind, seed: int, show_attributes: bool) -> WebShopEnvironment:
        key = kind, seed, show_attributes
        if key not in self._environments:
            pages = Pages(self._catalogue, self._goals(kind, seed), show_attributes=show_attributes)
            self._environments[key] = WebShopEnvironment(pages)
        return self._environments[key]

    def _kind(self, record: Mapping[str, Any]) -> GoalKind:
        """The options of human goals are a list, those of synthetic goals a mapping."""
        return "synthetic" if isinstance(record["goal"]["goal_options"], dict) else "human"

    def _goal(self, kind: GoalKind, record: Mapping[str, Any]) -> int:
        """The goal of a visit: the number that it was opened with, the goal of an earlier visit
        with the same name, or one drawn from the random stream. A visit without a name first draws
        its name from that stream."""
        session, seed = record["reset"]["session"], record["reset"].get("random_seed")
        if isinstance(session, int):
            # Negative numbers count from the end.
            return range(len(self._goals(kind, record["seed"]).goals))[session]
        visitor = kind, record["seed"], record["session_id"]
        if visitor not in self._visited:
            if seed is None:
                return int(record["goal_idx"])
            stream = random.Random(seed)
            if session is None:
                stream.choices(string.ascii_lowercase, k=10)
            self._visited[visitor] = self._goals(kind, record["seed"]).draw(stream)
        return self._visited[visitor]


def _same_page(environment: WebShopEnvironment, text: str, available: Mapping[str, Any]) -> bool:
    page = environment.page
    offered = {"has_search_bar": page.search_bar, "clickables": list(page.clickables)}
    return page.text == text and offered == available


def _same_answer(result: StepResult, step: Mapping[str, Any]) -> bool:
    recorded = step["obs"], step["r"], step["done"]
    return (result.observation, result.reward, result.done) == recorded


def _same_final(result: StepResult, final: Mapping[str, Any]) -> bool:
    recorded = {key: final[key] for key in ("reward", "asin", "options", "price")}
    return {"reward": result.reward, **result.info} == {**recorded, "account": final["info"]}
