"""How fast WebShop answers in one process: `python -m benchmarks.webshop [--data FOLDER]
[--episodes FILE] [--search FILE]`.

Replays recorded episodes and searches (see `rro verify webshop`) without comparing, and prints one
JSON object. A rate is the median of the repeats, with lowest and highest. `steps_per_second`: every
search is computed anew, pages of products seen before are not. "cold": the first time that the
process sees these episodes, nothing prepared. "repeated": searches are remembered too, as in
rollouts from one state."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rro.types import Task
from rro.webshop import WebShopBenchmark, WebShopEnvironment, WebShopOptions, open_webshop
from rro.webshop.goals import draw_goals
from rro.webshop.pages import Pages

SHARED = Path(os.environ.get("RRO_SHARED", Path(__file__).parents[2] / "shared"))
RECORDINGS = SHARED / "conformance" / "webshop"


def main() -> None:
    arguments = _arguments()
    begun = time.perf_counter()
    shop = open_webshop(WebShopOptions(data=arguments.data))
    load_seconds = time.perf_counter() - begun
    episodes = _episodes(shop, _records(arguments.episodes))
    steps = sum(len(actions) for _, _, actions in episodes)
    queries = [record["q"] for record in _records(arguments.search)]
    cold = round(_rate(lambda: _play(episodes), steps))
    new = _rates(
        lambda: (shop.catalogue.ranked.cache_clear(), _play(episodes)), steps, arguments.repeats
    )
    repeated = _rates(lambda: _play(episodes), steps, arguments.repeats)
    searched = _rates(
        lambda: list(map(shop.catalogue.index.search, queries)), len(queries), arguments.repeats
    )
    report = {
        "steps": steps,
        "steps_per_second": round(statistics.median(new)),
        "steps_per_second_range": _range(new),
        "steps_per_second_cold": cold,
        "steps_per_second_repeated": round(statistics.median(repeated)),
        "steps_per_second_repeated_range": _range(repeated),
        "searches": len(queries),
        "searches_per_second": round(statistics.median(searched)),
        "searches_per_second_range": _range(searched),
        "load_seconds": round(load_seconds, 2),
        "resident_mb": round(_resident() / 2**20),
        "peak_resident_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(report, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.webshop", description=__doc__)
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "webshop-1k")
    parser.add_argument("--episodes", type=Path, default=RECORDINGS / "episodes.jsonl.gz")
    parser.add_argument("--search", type=Path, default=RECORDINGS / "search.jsonl.gz")
    parser.add_argument("--repeats", type=int, default=7)
    return parser.parse_args()


def _records(file: Path) -> list[dict[str, Any]]:
    content = file.read_bytes()
    lines = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    return [json.loads(line) for line in lines.splitlines()]


Episode = tuple[WebShopEnvironment, Task, list[tuple[str, int | None]]]


def _episodes(shop: WebShopBenchmark, records: list[dict[str, Any]]) -> list[Episode]:
    """Environment, task and actions (with the seeds that <r> needs) of each recording, up to a step
    that raised."""
    environments: dict[tuple[int, bool], WebShopEnvironment] = {}
    episodes = []
    for record in records:
        key = record["seed"], record["show_attrs"]
        if key not in environments:
            goals = draw_goals(shop.catalogue, "synthetic", key[0])
            environments[key] = WebShopEnvironment(
                Pages(shop.catalogue, goals, show_attributes=key[1])
            )
        actions = []
        for step in record["steps"]:
            if "exc" in step:
                break
            actions.append((step["a"], step.get("random_seed")))
        goal = range(len(shop.goals.goals))[record["goal_idx"]]
        episodes.append((environments[key], Task(str(record["ep"]), goal), actions))
    return episodes


def _play(episodes: list[Episode]) -> None:
    for environment, task, actions in episodes:
        environment.reset(task)
        for action, random_seed in actions:
            environment.act(action, random_seed)


def _rate(run: Callable[[], object], count: int) -> float:
    begun = time.perf_counter()
    run()
    return count / (time.perf_counter() - begun)


def _rates(run: Callable[[], object], count: int, repeats: int) -> list[float]:
    return [_rate(run, count) for _ in range(repeats)]


def _range(rates: list[float]) -> list[int]:
    return [round(min(rates)), round(max(rates))]


def _resident() -> int:
    """Bytes now resident (Linux; elsewhere the peak)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
