"""WebShop in pure Python; answers step by step as the original does.

WebShop is by Yao et al. (arXiv 2207.01206; princeton-nlp/WebShop at 64fa2a5). docs/webshop.md lists
what is reproduced and how to check it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, overload

from rro.environments.base import Agent, Benchmark
from rro.environments.data_sets import data_folder, data_root
from rro.errors import DataError, UsageError
from rro.types import Message, Task
from rro.webshop.catalogue import Catalogue, build_catalogue, open_catalogue
from rro.webshop.environment import (
    INSTRUCTION,
    TOOL_INSTRUCTION,
    WebShopEnvironment,
    actions_of,
)
from rro.webshop.expert import WebShopExpert
from rro.webshop.goals import GoalSet, draw_goals, split_goals
from rro.webshop.options import WebShopOptions
from rro.webshop.pages import Pages
from rro.webshop.raw_files import catalogue_files, file_hashes, load_raw
from rro.webshop.sample import SampleOptions, sample_catalogue

__all__ = [
    "SampleOptions",
    "WebShopBenchmark",
    "WebShopEnvironment",
    "WebShopOptions",
    "open_webshop",
]


LICENCE = (
    "WebShop's own: academic and research use alone, no commercial use; not stated for the texts "
    "of the products"
)
"""Of the data files: LICENSE.md of princeton-nlp/WebShop."""
SAMPLE_LICENCE = "Apache-2.0"
"""Of the generated shop: rro's."""


class GoalTasks(Sequence[Task]):
    """The tasks of some goals, each made when it is asked for."""

    def __init__(self, kind: str, goals: Sequence[int]) -> None:
        self._kind, self._goals = kind, goals

    def __len__(self) -> int:
        return len(self._goals)

    @overload
    def __getitem__(self, place: int) -> Task: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Task]: ...
    def __getitem__(self, place: int | slice) -> Task | Sequence[Task]:
        if isinstance(place, slice):
            return GoalTasks(self._kind, self._goals[place])
        return Task(f"{self._kind}-{self._goals[place]}", self._goals[place])


class WebShopBenchmark(Benchmark):
    """A shop with its goals. All episodes share it read-only.

    `splits` lists the indices of goals by split; `instruction` is the opening message ("" for
    none); `provenance` describes the data, for the run folder. `all_or_nothing` and `tools` as for
    `WebShopEnvironment`.
    """

    name = "webshop"
    action_prefix = "Action: "

    def __init__(
        self,
        pages: Pages,
        splits: Mapping[str, Sequence[int]],
        instruction: str = INSTRUCTION,
        provenance: Mapping[str, Any] | None = None,
        *,
        all_or_nothing: bool = False,
        tools: bool = False,
    ) -> None:
        self._tools = tools
        self._all_or_nothing = all_or_nothing
        self.pages, self._splits, self._instruction = pages, splits, instruction
        self._provenance = dict(provenance or {})

    @property
    def catalogue(self) -> Catalogue:
        """The shop's products and their search index."""
        return self.pages.catalogue

    @property
    def goals(self) -> GoalSet:
        """The goals with their price limits, and the price of every product."""
        return self.pages.goals

    def tasks(self, split: str) -> Sequence[Task]:
        """The tasks of "train", "test" or "all". A task's data is the index of its goal, and its id
        is made of kind and index, such as "synthetic-17". Raises UsageError for another split."""
        if split not in self._splits:
            raise UsageError(
                f"webshop has no split {split!r}: choose one of {', '.join(self._splits)}"
            )
        return GoalTasks(self.goals.kind, self._splits[split])

    def make(self) -> WebShopEnvironment:
        """A new environment on this shop."""
        return WebShopEnvironment(
            self.pages,
            self._instruction,
            all_or_nothing=self._all_or_nothing,
            tools=self._tools,
        )

    def action_of(self, message: Message) -> str:
        """The action as the shop reads it, such as "click[buy now]"; "" for one that it cannot
        read."""
        actions = (action for action in actions_of(message) if action is not None)
        return "\n".join(f"{word}[{argument}]" for word, argument in actions)

    def expert(self, task: Task, noise: float = 0.0, seed: int = 0) -> Agent:
        """A scripted buyer that knows the task's goal (see `WebShopExpert`)."""
        goal = self.goals.goals[task.data]
        return WebShopExpert(goal, self.catalogue[goal.asin].query, noise, seed, tools=self._tools)

    def provenance(self) -> Mapping[str, Any]:
        """Hashes of the data and their licence, price seed, and kind and number of goals."""
        return {**self._provenance, "goals": self.goals.kind, "goal_count": len(self.goals.goals)}


def open_webshop(options: WebShopOptions) -> WebShopBenchmark:
    """Open the WebShop benchmark, e.g. `open_webshop(WebShopOptions(catalogue="sample"))`.

    Raises DataError if the data folder is missing or its files are not WebShop's, or if the
    catalogue has no goals of the requested kind.
    """
    folder, catalogue = (_sample if options.catalogue == "sample" else _from_files)(options)
    goals = draw_goals(catalogue, options.goals, options.price_seed)
    origin = {
        **catalogue.origin,
        "catalogue": options.catalogue,
        "price_seed": options.price_seed,
        "license": SAMPLE_LICENCE if options.catalogue == "sample" else LICENCE,
    }
    if options.reward != "score":
        origin["reward"] = options.reward
    if options.tools:
        origin["tools"] = True
    instruction = TOOL_INSTRUCTION if options.tools else INSTRUCTION
    return WebShopBenchmark(
        Pages(catalogue, goals, options.results_per_page, options.show_attributes),
        split_goals(goals, folder),
        instruction if options.system is None else options.system,
        origin,
        all_or_nothing=options.reward == "success",
        tools=options.tools,
    )


def _from_files(options: WebShopOptions) -> tuple[Path, Catalogue]:
    """The data folder, and its catalogue. A mapped one that is there is not made anew: of the data
    files that are still there only the sizes are looked at."""
    if options.index is None or not options.index.exists():
        folder = options.data or data_folder("webshop-1k")
        origin = {"files": file_hashes(folder)}
        sizes = {file.name: file.stat().st_size for file in catalogue_files(folder)}
        return folder, build_catalogue(load_raw(folder), options.index, origin, sizes)
    folder, catalogue = options.data or data_root() / "webshop-1k", open_catalogue(options.index)
    for name, size in catalogue.file_sizes.items():
        if (folder / name).exists() and (folder / name).stat().st_size != size:
            raise _another(options.index)
    return folder, catalogue


def _sample(options: WebShopOptions) -> tuple[None, Catalogue]:
    """The generated shop."""
    raw = sample_catalogue(options.sample_seed, options.sample)
    digest = hashlib.sha256(json.dumps(asdict(raw), sort_keys=True).encode()).hexdigest()
    given = options.sample.model_dump(exclude_unset=True)
    origin = {"sample_seed": options.sample_seed, "sample": given, "sample_sha256": digest}
    if options.index is None or not options.index.exists():
        return None, build_catalogue(raw, options.index, origin)
    catalogue = open_catalogue(options.index)
    if catalogue.origin != origin:
        raise _another(options.index)
    return None, catalogue


def _another(index: Path) -> DataError:
    return DataError(
        f"{index} has the products of another catalogue: name another folder, or delete it"
    )
