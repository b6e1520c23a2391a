"""A process to kill: explores a fake benchmark slowly. `python explorer.py JOURNAL [CALLS]
[hang|block|full]`.

CALLS gets the seed of each policy call as it begins. "hang": steps never come back; "block": so of
an environment that says that it blocks; "full": the disk is, at 30 kB."""

import asyncio
import os
import resource
import sys
import threading
from pathlib import Path

from fakes import TREE, TreeBenchmark, explore, make_context, uniform

from rro.errors import RroError
from rro.exploration.strategies.rising import RisingExploration
from rro.runs.journal import Journal

FOREST = {f"task/{number}": TREE for number in range(12)}
STRATEGY = RisingExploration(3, 3)


class Slow:
    """A policy that takes a moment and writes down what it was asked for."""

    name = "uniform"

    def __init__(self, calls):
        self.calls, self.inner = calls, uniform()

    async def sample(self, messages, n, params, seed):
        self.calls.write(f"{seed}\n")
        self.calls.flush()
        await asyncio.sleep(0.002 + seed % 7 / 1000)
        return await self.inner.sample(messages, n, params, seed)


def main(journal, calls=None, fault=""):
    benchmark = TreeBenchmark(FOREST)
    if fault in ("hang", "block"):
        benchmark = TreeBenchmark(
            FOREST, blocking=fault == "block", fault=lambda path, action: threading.Event().wait()
        )
    if fault == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
    with Journal(Path(journal)) as records, Path(calls or os.devnull).open("a") as log:
        print("begun", flush=True)
        print(
            explore(
                STRATEGY,
                make_context(benchmark, Slow(log), records, step_timeout=0.3 if fault else 30.0),
                4,
            )
        )


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except RroError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
