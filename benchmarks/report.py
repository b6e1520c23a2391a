"""How large a report is and how fast it opens: `python -m benchmarks.report [--tasks 500] [--data
FOLDER] [--repeats 5]`.

Explores WebShop tasks with scripted experts that err half of the time (rising exploration, 5
rollouts, at most 5 candidates; no model), so that trees and pages are as in a real run: of the shop
in FOLDER, or of the generated one. Then writes the report and opens it in Chromium with an empty
cache: seconds from asking for the page to the first tree, and to the overview. Prints one JSON
object; figures are medians with lowest and highest. Needs playwright and Debian's chromium (or
RRO_CHROMIUM)."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rro.config import parse_config
from rro.episodes.loop import Limits, reset_checked
from rro.exploration import explorer
from rro.exploration.records import read_trees
from rro.exploration.sampler import ExplorationContext
from rro.exploration.strategies.rising import RisingExploration
from rro.learning.pairs import to_row, write_pairs
from rro.policies.base import Policy
from rro.report.gather import Gatherer
from rro.report.page import write_report
from rro.runs.folder import RunFolder
from rro.runs.journal import Journal
from rro.runs.progress import Progress
from rro.types import Completion, Message, SamplingParams, Source, Task
from rro.webshop import WebShopBenchmark, WebShopOptions, open_webshop

READY = {"trees": "[role=treeitem]", "overview": "figure svg"}


class Experts:
    """The expert of whichever task the conversation is about."""

    name = "noisy-experts"

    def __init__(self, shop: WebShopBenchmark, tasks: Sequence[Task], limits: Limits) -> None:
        self._experts: dict[str, Policy] = {}
        for task in tasks:
            opening = asyncio.run(reset_checked(shop.make(), task, 0, limits.step_timeout))
            self._experts[opening[-1].content] = shop.expert(task, noise=0.5)

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        expert = next(
            self._experts[message.content]
            for message in messages
            if message.content in self._experts
        )
        found = await expert.sample(messages, n, params, seed)
        return [
            Completion(
                Message("assistant", one.message.content, Source.POLICY), one.finish, self.name
            )
            for one in found
        ]

    async def close(self) -> None:
        """Nothing to release."""


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        run = _explored(arguments.data, arguments.tasks, Path(folder) / "run")
        begun = time.perf_counter()
        with Gatherer([run.path]) as gatherer:
            file = write_report(*gatherer.whole(), Path(folder) / "report.html")
        seconds = time.perf_counter() - begun
        size = sum(
            path.stat().st_size
            for path in ([file] if file.suffix == ".html" else file.parent.rglob("*"))
        )
        result = {
            "tasks": arguments.tasks,
            "journal_bytes": run.journal.stat().st_size,
            "report": file.name,
            "report_bytes": size,
            "write_seconds": round(seconds, 2),
            **{f"open_{view}_seconds": _opened(file, view, arguments.repeats) for view in READY},
        }
    print(json.dumps(result, indent=1))


def _explored(data: Path | None, count: int, folder: Path) -> RunFolder:
    sample = WebShopOptions(catalogue="sample", system="")
    shop = open_webshop(WebShopOptions(data=data) if data else sample)
    tasks = (shop.tasks("train") if data is None else [*shop.tasks("train"), *shop.tasks("test")])[
        :count
    ]
    assert len(tasks) == count, f"the shop has {len(tasks)} tasks only"
    run, limits = (
        RunFolder.create(parse_config({"name": "benchmark"}, "benchmark"), folder),
        Limits(),
    )
    policy, params = Experts(shop, tasks, limits), SamplingParams()
    with Journal(run.journal) as journal, Progress("explore", count, "tasks") as progress:
        context = ExplorationContext(
            shop, policy, policy, journal, params, params, limits, seed=0, iteration=1
        )
        strategy = RisingExploration(5, 5)
        asyncio.run(explorer.explore(tasks, strategy, context, 32, progress))
        trees = read_trees(journal, ((context.key(task), task) for task in tasks))
        rows = (to_row(pair) for tree in trees for pair in strategy.pairs(tree, 1))
        write_pairs(rows, run.pairs(1))
    return run


def _opened(file: Path, view: str, repeats: int) -> dict[str, float]:
    """Median, lowest and highest of fresh browsers."""
    from playwright.sync_api import sync_playwright

    seconds = []
    with sync_playwright() as driver:
        for _ in range(repeats):
            browser = driver.chromium.launch(
                executable_path=os.environ.get("RRO_CHROMIUM") or shutil.which("chromium")
            )
            page = browser.new_page()
            begun = time.perf_counter()
            page.goto(f"file://{file}#view={view}")
            page.wait_for_selector(READY[view])
            seconds.append(time.perf_counter() - begun)
            browser.close()
    return {
        "median": round(statistics.median(seconds), 2),
        "lowest": round(min(seconds), 2),
        "highest": round(max(seconds), 2),
    }


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description="size and speed of the report")
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="WebShop's files (default: a generated shop)"
    )
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
