"""WebShop with a catalogue of its full size: `python -m benchmarks.webshop_full FOLDER
[--products N] [--episodes N] [--goals human]`.

Makes the files of such a catalogue (see `benchmarks.webshop_files`), puts the products and their
search index into a mapped folder, opens that in fresh processes, first one, then two at once, plays
scripted episodes in each, and prints one JSON object. What FOLDER has already is used again: 7 GB
for all products. A script searches as agents do (by kind and options, attributes, or instruction),
turns a page, opens a product, reads a section, chooses options and buys, in up to 10 steps of which
a fifth are searches, no two alike. `resident_mb`: `all` is the resident set, `share` the
proportional one, in which a page that two processes map counts half for each, `own` what no other
process shares. `same_ranking`: of how many searches the 50 hits are the first of the ranking of
all products."""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.webshop_files import FULL, HUMAN_GOALS, write_files
from rro.types import Task
from rro.webshop import WebShopBenchmark, WebShopEnvironment, WebShopOptions, open_webshop
from rro.webshop.raw_files import load_raw

SHARED = Path(os.environ.get("RRO_SHARED", Path(__file__).parents[2] / "shared"))
COMPARED = 200


def main() -> None:
    arguments = _arguments()
    if arguments.work:
        WORK[arguments.work](arguments)
        return
    files, shop = arguments.folder / "files", arguments.folder / "shop"
    report: dict[str, Any] = {"products": arguments.products, "goals": arguments.goals}
    if not files.exists() and not shop.exists():
        report["files"] = _together("files", arguments, 1)[0]
    if not shop.exists():
        report["shop"] = _together("shop", arguments, 1)[0]
    report["shop_mb"] = round(sum(file.stat().st_size for file in shop.iterdir()) / 2**20)
    for count in (1, 2):
        report[f"processes_{count}"] = _together("play", arguments, count)
    report["same_ranking"] = _together("compare", arguments, 1)[0]
    print(json.dumps(report, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.webshop_full", description=__doc__)
    parser.add_argument("folder", type=Path, help="for the files and the shop, which are kept")
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "webshop-1k")
    parser.add_argument("--products", type=int, default=FULL)
    parser.add_argument("--episodes", type=int, default=1_000)
    parser.add_argument("--goals", choices=["human", "synthetic"], default="human")
    parser.add_argument("--work", choices=list(WORK), help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help="of the episodes")
    return parser.parse_args()


def _together(work: str, arguments: argparse.Namespace, count: int) -> list[dict[str, Any]]:
    """The reports of fresh processes that work at once. None ends, or looks at its memory, before
    all have done their work."""
    names = ("data", "products", "episodes", "goals")
    options = [f"--{name}={getattr(arguments, name)}" for name in names]
    command = [sys.executable, "-m", "benchmarks.webshop_full", str(arguments.folder), *options]
    processes = [
        subprocess.Popen(
            [*command, f"--work={work}", f"--seed={seed}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(count)
    ]
    for process in processes:
        process.stdout.readline()
    answers = [process.communicate("\n")[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"a process that was to do {work!r} failed")
    return [json.loads(answer) for answer in answers]


def _answer(report: dict[str, Any]) -> None:
    """Print the report and the memory, once all processes have done their work."""
    print("done", flush=True)
    sys.stdin.readline()
    memory = psutil.Process().memory_full_info()
    kinds = {"all": memory.rss, "share": memory.pss, "own": memory.uss}
    report["resident_mb"] = {name: size >> 20 for name, size in kinds.items()}
    report["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps(report))


class Clock:
    """Seconds since it was made, by the wall and of this process."""

    def __init__(self) -> None:
        self._begun = time.perf_counter(), time.process_time()

    def seconds(self) -> dict[str, float]:
        wall, own = time.perf_counter() - self._begun[0], time.process_time() - self._begun[1]
        return {"seconds": round(wall, 2), "processor_seconds": round(own, 2)}


def _make_files(arguments: argparse.Namespace) -> None:
    clock, folder = Clock(), arguments.folder / "files"
    write_files(folder, load_raw(arguments.data), arguments.products, HUMAN_GOALS)
    megabytes = sum(file.stat().st_size for file in folder.iterdir()) >> 20
    _answer({**clock.seconds(), "mb": megabytes})


def _open(arguments: argparse.Namespace) -> WebShopBenchmark:
    folder = arguments.folder
    return open_webshop(
        WebShopOptions(data=folder / "files", index=folder / "shop", goals=arguments.goals)
    )


def _make_shop(arguments: argparse.Namespace) -> None:
    clock = Clock()
    _open(arguments)
    _answer(clock.seconds())


def _play(arguments: argparse.Namespace) -> None:
    clock = Clock()
    shop = _open(arguments)
    opened, clock = clock.seconds(), Clock()
    # It loads what analyses texts.
    shop.catalogue.find(("first",), 0)
    first_search = clock.seconds()
    environment, wall, processor = shop.make(), list[float](), list[float]()
    searches, rewards = list[int](), list[float]()
    for task, stream in _episodes(shop, arguments):
        environment.reset(task)
        for action in _script(shop, environment, task, stream):
            if action.startswith("search"):
                searches.append(len(wall))
            begun = time.perf_counter(), time.thread_time()
            result = environment.act(action)
            wall.append(time.perf_counter() - begun[0])
            processor.append(time.thread_time() - begun[1])
        rewards.append(result.reward)
    _answer(
        {
            "open": opened,
            "first_search": first_search,
            "tasks": len(shop.tasks("train")),
            "steps": len(wall),
            "searches": len(searches),
            "mean_reward": round(float(np.mean(rewards)), 3),
            "steps_per_second": round(len(wall) / sum(wall)),
            "steps_per_processor_second": round(len(wall) / sum(processor)),
            "search_ms": _percentiles([wall[step] for step in searches]),
            "search_processor_ms": _percentiles([processor[step] for step in searches]),
        }
    )


def _episodes(
    shop: WebShopBenchmark, arguments: argparse.Namespace
) -> Iterator[tuple[Task, random.Random]]:
    stream = random.Random(arguments.seed)
    tasks = shop.tasks("train")
    for place in stream.sample(range(len(tasks)), min(arguments.episodes, len(tasks))):
        yield tasks[place], random.Random(f"{arguments.seed} {place}")


def _script(
    shop: WebShopBenchmark, environment: WebShopEnvironment, task: Task, stream: random.Random
) -> Iterator[str]:
    """The actions of an episode."""
    goal = shop.goals.goals[task.data]
    kind, wish = shop.catalogue[goal.asin].query, goal.instruction.split(", and price")[0]
    options, attributes = " ".join(goal.option_values()), " ".join(goal.attributes)
    ways = [f"{kind} {options}", f"{attributes} {kind} {options}", wish]
    for keywords in stream.sample(ways, stream.choice((1, 2))):
        yield f"search[{keywords}]"
        if stream.random() < 0.3:
            yield "click[next >]"
        shown = [asin for asin in environment.page.clickables.values() if asin]
        if not shown:
            continue
        yield f"click[{stream.choice(shown)}]"
        if stream.random() < 0.5:
            yield f"click[{stream.choice(('description', 'features'))}]"
            yield "click[< prev]"
    clickables = environment.page.clickables
    for name in list(dict.fromkeys(filter(None, clickables.values())))[:3]:
        values = [value for value, option in clickables.items() if option == name]
        yield f"click[{stream.choice(values)}]"
    yield "click[buy now]"


def _percentiles(seconds: list[float]) -> dict[str, float]:
    milliseconds = 1000 * np.array(seconds)
    found = {f"p{at}": round(float(np.percentile(milliseconds, at)), 2) for at in (50, 95, 100)}
    return {"mean": round(float(milliseconds.mean()), 2), **found}


def _compare(arguments: argparse.Namespace) -> None:
    shop, equal = _open(arguments), 0
    index, environment = shop.catalogue.index, shop.make()
    queries = list[str]()
    for task, stream in _episodes(shop, arguments):
        environment.reset(task)
        queries.append(next(_script(shop, environment, task, stream))[7:-1])
    for query in queries[:COMPARED]:
        equal += index.search(query) == index.search(query, len(shop.catalogue.products))[:50]
    _answer({"searches": len(queries[:COMPARED]), "equal": equal})


WORK: dict[str, Callable[[argparse.Namespace], None]] = {
    "files": _make_files,
    "shop": _make_shop,
    "play": _play,
    "compare": _compare,
}

if __name__ == "__main__":
    main()
