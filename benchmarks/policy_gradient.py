"""What a policy gradient's training costs: `python -m benchmarks.policy_gradient RUN [--tasks 32]
[--repeats 3]`, on a run folder that has done SFT and explored.

Groups of 8 episodes with GRPO's advantages from RUN's SFT policy, against DPO on RUN's preference
pairs: CPU seconds of a whole call (loading, scoring under the old weights or the reference, two
epochs, saving) over the tokens trained on, in turn, with the same rows per forward pass, after one
training to warm up. Both sequences of a pair are rows. `shared` is the same with common beginnings
computed once; `start_up_cpu` a call with a single step of two episodes, which says what a round
costs at least.

`--memory ROUNDS` instead: so many rounds of a few episodes in one process, each from the checkpoint
of the last; resident memory after the tenth and at the end.

Prints one JSON object; ratios with their range over the repeats."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from rro import Exploration, explore
from rro.environments.registry import open_environment
from rro.learning.base import TrainingContext, TrainingReport
from rro.learning.dpo import Dpo
from rro.learning.pairs import read_pairs
from rro.learning.policy_gradient import PolicyGradient, PolicyGradientConfig
from rro.learning.rows import preference_rows
from rro.models.chat import ChatFormat
from rro.models.loading import load_model
from rro.policies.local.policy import TransformersPolicy
from rro.runs.folder import RunFolder
from rro.types import WeightedEpisode

EPOCHS = 2
SEQUENCES = 8
"""Sequences of a forward pass; a pair is two."""


class Bench:
    """A run's SFT policy, what it played, and trainings that start from it."""

    def __init__(self, folder: RunFolder, tasks: int, scratch: Path) -> None:
        self.folder, self.scratch, self.made = folder, scratch, 0
        self.start = folder.checkpoint("sft")
        self.context = TrainingContext(folder.config.model, folder.config.seed)
        self.episodes: list[WeightedEpisode] = self._play(tasks).rows("group_advantages")

    def _play(self, tasks: int) -> Exploration:
        config = self.folder.config
        benchmark = open_environment(config.environment)
        model, self.tokenizer = load_model(config.model, self.start, train=False)
        return explore(
            TransformersPolicy(model, self.tokenizer, "sft", max_batch=config.policy.max_batch),
            benchmark,
            benchmark.tasks(config.environment.train_split)[:tasks],
            "group",
            max_new_tokens=config.policy.max_new_tokens,
            seed=config.seed,
        )

    def _output(self) -> Path:
        self.made += 1
        return self.scratch / str(self.made)

    def policy_gradient(
        self, episodes: Sequence[WeightedEpisode], start: Path | None = None, **options: Any
    ) -> TrainingReport:
        """Train on episodes, from the SFT policy or from another checkpoint."""
        settings = PolicyGradientConfig(
            **{"epochs": EPOCHS, "micro_batch": SEQUENCES, "share_prefixes": False, **options}
        )
        start = start or self.start
        return PolicyGradient(settings).train(episodes, start, None, self._output(), self.context)

    def dpo(self, tokens: int) -> TrainingReport:
        """DPO on as many of the run's pairs as have about so many tokens."""
        settings = self.folder.config.dpo.model_copy(
            update={"epochs": EPOCHS, "micro_batch": SEQUENCES // 2}
        )
        pairs = list(read_pairs(self.folder.pairs(1)))
        rows = preference_rows(ChatFormat(self.tokenizer), pairs, settings.max_length)
        wanted = max(1, round(len(pairs) * min(1.0, tokens / rows.counts.tokens)))
        return Dpo(settings).train(
            pairs[:wanted], self.start, self.start, self._output(), self.context
        )


def timed(train: Callable[[], TrainingReport]) -> dict[str, float]:
    """CPU and wall seconds of a training of `EPOCHS` epochs, and its trained tokens."""
    cpu, wall = time.process_time(), time.perf_counter()
    report = train()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    tokens = report.rows.tokens * EPOCHS
    return {"cpu": cpu, "wall": wall, "tokens": tokens}


def compare(bench: Bench, repeats: int) -> dict[str, Any]:
    """All trainings in turn, and their ratios to DPO's for as many tokens."""
    few = [episode for episode in bench.episodes if any(episode.advantages)][:2]
    tokens = bench.policy_gradient(bench.episodes, epochs=1).rows.tokens
    trainings: dict[str, Callable[[], TrainingReport]] = {
        "dpo": lambda: bench.dpo(tokens),
        "policy_gradient": lambda: bench.policy_gradient(bench.episodes),
        "shared": lambda: bench.policy_gradient(bench.episodes, share_prefixes=True),
    }
    rounds = [{name: timed(train) for name, train in trainings.items()} for _ in range(repeats)]
    ratios = {
        name: sorted(per_token(each[name]) / per_token(each["dpo"]) for each in rounds)
        for name in ("policy_gradient", "shared")
    }
    startups = [timed(lambda: bench.policy_gradient(few, epochs=1))["cpu"] for _ in range(repeats)]
    return {"rounds": rounds, "ratios_to_dpo": ratios, "start_up_cpu": startups}


def per_token(training: dict[str, float]) -> float:
    """CPU seconds for each trained token."""
    return training["cpu"] / training["tokens"]


def memory(bench: Bench, rounds: int, size: int = 16) -> dict[str, Any]:
    """Resident memory in MiB after each of many rounds, and their CPU seconds."""
    start, sizes, seconds = bench.start, list[int](), list[float]()
    for number in range(rounds):
        at = number * size % len(bench.episodes)
        begun = time.process_time()
        report = bench.policy_gradient(
            bench.episodes[at : at + size], start, batch_size=size, imitate=0.3
        )
        seconds.append(time.process_time() - begun)
        if start != bench.start:
            shutil.rmtree(start)
        start = report.checkpoint
        sizes.append(psutil.Process().memory_info().rss // 2**20)
    first, last = max(sizes[:10]), max(sizes[-10:])
    return {"first_ten": first, "last_ten": last, "sizes": sizes, "cpu": seconds}


def main() -> None:
    arguments = _arguments()
    folder = RunFolder.open(arguments.run)
    import torch

    torch.set_num_threads(folder.config.threads or 1)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(folder, arguments.tasks, Path(scratch))
        if arguments.memory:
            result = memory(bench, arguments.memory)
        else:
            result = compare(bench, arguments.repeats)
    print(json.dumps({"episodes": len(bench.episodes), **result}, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder with checkpoints/sft and pairs-1.jsonl")
    parser.add_argument("--tasks", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", type=int, metavar="ROUNDS")
    return parser.parse_args()


if __name__ == "__main__":
    main()
