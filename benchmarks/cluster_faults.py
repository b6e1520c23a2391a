"""Whether an exploration on a Ray cluster ends as an undisturbed one, whatever ends on its way:
`python -m benchmarks.cluster_faults [--moments 50] [--seed 0]`.

A cluster of three nodes on this machine (the driver's, and two that can be lost) explores the
generated shop, replicas and environments as actors. Five times, at random points of its journal and
in a random order, something happens: an actor is killed, a node is killed, the driver is killed and
the run resumed, a node is drained, one joins. Afterwards the journal is compared with that of a run
without Ray: the same trees, the same pieces of work, each once. Then the next such run. Prints one
JSON object. `tests/cluster/test_ray_faults.py` is one of them."""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from rro.policies.base import PolicyContext
from rro.policies.scripted import ScriptedPolicy
from rro.types import Completion, Message, SamplingParams

RECIPE = Path(__file__).with_suffix(".toml")
ON_RAY = ("policy.placement=ray", "policy.replicas=3", "environment.placement=ray")
ON_RAY += ("environment.actors=2",)
FAULTS = ("actor", "node", "driver", "drain", "join")
# Seconds that a policy call takes, so that a run lasts long enough to be disturbed.
CALL = 0.01


class Clicks(ScriptedPolicy):
    """Clicks at random on one of the page's buttons, or searches; every call takes a moment."""

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        import asyncio

        await asyncio.sleep(CALL)
        return await super().sample(messages, n, params, seed)


def click(messages: Sequence[Message], rng: random.Random) -> str:
    """A search for some words of the page, or a click."""
    page = messages[-1].content
    instruction, *buttons = [part.strip() for part in page.split("[SEP]")][2:]
    if page.endswith("[SEP] Search"):
        words = re.findall(r"[a-z]{4,}", instruction)
        return f"Action: search[{' '.join(rng.sample(words, 3))}]"
    return f"Action: click[{rng.choice(buttons)}]"


def open_clicks(context: PolicyContext) -> ScriptedPolicy:
    """The policy of the recipe."""
    return Clicks(click, context.name)


class Nodes:
    """A cluster on this machine, as a context manager: a head, where drivers run and no actor has
    room, and two workers."""

    def __enter__(self) -> Nodes:
        from ray.cluster_utils import Cluster

        # what else this machine does is no reason to end our actors
        os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 100_000_000}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.workers, self.drained = [self._add(), self._add()], list[Any]()
        return self

    def __exit__(self, *error: object) -> None:
        self.cluster.shutdown()

    @property
    def address(self) -> str:
        """What drivers connect to."""
        address: str = self.cluster.address
        return address

    def have(self, fault: str, chosen: int) -> None:
        """Let one of FAULTS happen, to the node or actor of number `chosen`."""
        if fault == "actor":
            found = [actor for node in self.workers for actor in actors_of(node)]
            if found:
                found[chosen % len(found)].kill()
        elif fault == "join":
            self.workers.append(self._add())
        elif fault in ("node", "drain"):
            # the work has to be somewhere
            self.workers += [self._add()] if len(self.workers) < 2 else []
            node = self.workers.pop(chosen % len(self.workers))
            if fault == "node":
                self.cluster.remove_node(node, allow_graceful=False)
            else:
                self._drain(node)

    def groups(self) -> tuple[list[Any], list[Any]]:
        """The nodes that work, and those that are drained."""
        return list(self.workers), list(self.drained)

    def restore(self) -> None:
        """End what was drained, and bring the workers back to two."""
        for node in self.drained:
            self.cluster.remove_node(node)
        self.drained = []
        for node in self.workers[2:]:
            self.cluster.remove_node(node)
        self.workers = self.workers[:2]
        self.workers += [self._add() for _ in range(2 - len(self.workers))]

    def _drain(self, node: Any) -> None:
        from ray._raylet import GcsClient
        from ray.core.generated.autoscaler_pb2 import DrainNodeReason

        directory = GcsClient(address=self.address)
        reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        deadline = int((time.time() + 3600) * 1000)
        accepted, why = directory.drain_node(node.node_id, reason, "a test", deadline)
        assert accepted, why
        self.drained.append(node)

    def _add(self) -> Any:
        return self.cluster.add_node(num_cpus=2, object_store_memory=80_000_000)


def actors_of(node: Any) -> list[psutil.Process]:
    """The processes of our actors on a node, oldest first."""
    try:
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        return [child for child in raylet.children() if "Actor" in " ".join(child.cmdline())]
    except (KeyError, psutil.Error):
        # the node has ended
        return []


def driver(run: Path, address: str | None = None) -> subprocess.Popen[str]:
    """A process that explores, or goes on exploring."""
    command = [sys.executable, "-m", "rro", "explore"]
    places = ON_RAY if address else ()
    new = (str(RECIPE), *places, "--out", str(run))
    old = (str(run), "--trust-run-folder")
    command += old if (run / "config.toml").exists() else new
    environment = {**os.environ, **({"RAY_ADDRESS": address} if address else {})}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for a driver. Raises AssertionError with its log if it failed."""
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out


def work(run: Path) -> dict[str, Any]:
    """The finished work of a run by kind and key, without seconds. Raises AssertionError where a
    piece occurs twice."""
    records = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    kept = [r for r in records if r["kind"] in ("candidate", "rollout", "task", "stage")]
    counts = Counter((record["kind"], record["key"]) for record in kept)
    assert max(counts.values()) == 1, counts.most_common(3)
    return {f"{r['kind']} {r['key']}": _timeless(r) for r in kept}


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key != "seconds"}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def disturb(nodes: Nodes, run: Path, faults: Sequence[tuple[int, str]], chosen: int) -> None:
    """Explore into a new folder; each fault, in order, happens when the journal has so many
    records."""
    process, journal = driver(run, nodes.address), run / "journal.jsonl"
    for moment, fault in faults:
        while process.poll() is None and _lines(journal) < moment:
            time.sleep(0.005)
        if fault == "driver":
            process.send_signal(signal.SIGKILL)
            process.communicate()
            process = driver(run, nodes.address)
        else:
            nodes.have(fault, chosen)
    finish(process)


def _lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, ends = random.Random(arguments.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as folder, Nodes() as nodes:
        finish(driver(Path(folder) / "undisturbed"))
        expected = work(Path(folder) / "undisturbed")
        begun = time.perf_counter()
        for number in range(0, arguments.moments, len(FAULTS)):
            moments = sorted(rng.randrange(1, len(expected)) for _ in FAULTS)
            faults = list(zip(moments, rng.sample(FAULTS, len(FAULTS)), strict=True))
            run = Path(folder) / str(number)
            disturb(nodes, run, faults, rng.randrange(100))
            nodes.restore()
            same = work(run) == expected
            ends["as undisturbed" if same else "otherwise"] += 1
            print(faults, same, file=sys.stderr, flush=True)
        seconds = time.perf_counter() - begun
    print(json.dumps({"records": len(expected), "ends": ends, "seconds": round(seconds)}))


if __name__ == "__main__":
    main()
