"""WebShop in pure Python, step for step as the original answers: `open_webshop` gives the
benchmark.

WebShop is by Yao et al. (arXiv 2207.01206; princeton-nlp/WebShop at 64fa2a5). docs/webshop.md says
what is reproduced."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from rro.environments.base import Agent, Benchmark
from rro.environments.data_sets import data_folder
from rro.errors import UsageError
from rro.types import Task
from rro.webshop.catalogue import Catalogue, RawCatalogue, build_catalogue, file_hashes, load_raw
from rro.webshop.environment import INSTRUCTION, WebShopEnvironment
from rro.webshop.expert import WebShopExpert
from rro.webshop.goals import GoalKind, GoalSet, draw_goals, split_goals
from rro.webshop.pages import Pages
from rro.webshop.sample import SampleOptions, sample_catalogue

__all__ = ["WebShopBenchmark", "WebShopEnvironment", "open_webshop"]


class WebShopBenchmark(Benchmark):
    """A shop, its goals by split, and what all visits share."""

    name = "webshop"
    action_prefix = "Action: "

    def __init__(
        self,
        pages: Pages,
        splits: Mapping[str, Sequence[int]],
        instruction: str = INSTRUCTION,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.pages, self._splits, self._instruction = pages, splits, instruction
        self._provenance = dict(provenance or {})

    @property
    def catalogue(self) -> Catalogue:
        return self.pages.catalogue

    @property
    def goals(self) -> GoalSet:
        return self.pages.goals

    def tasks(self, split: str) -> Sequence[Task]:
        """Tasks named like "synthetic-17", whose data is the goal's index."""
        if split not in self._splits:
            raise UsageError(
                f"webshop has no split {split!r}: choose one of {', '.join(self._splits)}"
            )
        return [Task(f"{self.goals.kind}-{index}", index) for index in self._splits[split]]

    def make(self) -> WebShopEnvironment:
        return WebShopEnvironment(self.pages, self._instruction)

    def expert(self, task: Task, noise: float = 0.0, seed: int = 0) -> Agent:
        goal = self.goals.goals[task.data]
        return WebShopExpert(goal, self.catalogue[goal.asin].query, noise, seed)

    def provenance(self) -> Mapping[str, Any]:
        return {**self._provenance, "goals": self.goals.kind, "goal_count": len(self.goals.goals)}


def open_webshop(
    data: str | Path | None = None,
    goals: GoalKind = "synthetic",
    price_seed: int = 0,
    catalogue: Literal["folder", "sample"] = "folder",
    sample_seed: int = 0,
    sample: SampleOptions | None = None,
    index: str | Path | None = None,
    results_per_page: int = 10,
    show_attributes: bool = False,
    system: str | None = None,
) -> WebShopBenchmark:
    """The WebShop benchmark.

    `data`: a folder with WebShop's files (None: where `rro data fetch webshop-1k` puts them).
    `catalogue` "sample": a shop that the package generates from `sample_seed` and the further
    options `sample`; no download. `price_seed`: of the stream behind prices and price limits.
    `index`: a folder for the search index, built where it is not there yet (None: in memory).
    `system`: the opening turn that tells the rules (None: the built-in text; "": none, and no
    "OK"). Raises UsageError or DataError for what does not fit."""
    if results_per_page < 1:
        raise UsageError(
            f"webshop option results_per_page must be at least 1, not {results_per_page}"
        )
    if catalogue == "sample":
        folder, raw, origin = (
            None,
            *_sample(sample_seed, (sample or SampleOptions()).model_dump(exclude_unset=True)),
        )
    else:
        folder = data_folder("webshop-1k") if data is None else Path(data)
        raw, origin = load_raw(folder), {"files": file_hashes(folder)}
    shop = build_catalogue(raw, None if index is None else Path(index))
    drawn = draw_goals(raw, shop, goals, price_seed)
    origin |= {"catalogue": catalogue, "price_seed": price_seed}
    return WebShopBenchmark(
        Pages(shop, drawn, results_per_page, show_attributes),
        split_goals(drawn, folder),
        INSTRUCTION if system is None else system,
        origin,
    )


def _sample(seed: int, options: Mapping[str, Any]) -> tuple[RawCatalogue, dict[str, Any]]:
    raw = sample_catalogue(seed, **options)
    digest = hashlib.sha256(json.dumps(asdict(raw), sort_keys=True).encode()).hexdigest()
    return raw, {"sample_seed": seed, "sample": dict(options), "sample_sha256": digest}
