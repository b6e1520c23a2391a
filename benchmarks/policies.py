"""Generated tokens per second through Policy.sample, by backend: SmolLM2, prompts of about 600
tokens, up to 40 new ones.

    python -m benchmarks.policies [--vllm PYTHON] [--backends NAME ...] [--repeat 3] [--threads N]
    [--out FILE]

Every backend has a process of its own (their environments differ), in which it is opened and warmed
up. Then all draw each load in turn, `--repeat` times, so that other work on the machine hits all
alike; the others wait meanwhile. In "new" loads no prompt was ever seen before; in "known" ones
each was answered once, as in exploration, where a history is mostly that of the step before. One
row a backend: tokens/s as median and range, the ratio to the first backend drawing one by one, and
tokens for each second of CPU time, which depends least on other work. With `--logprobs` the
log-probabilities of some answers are compared with Transformers in float32 as well, token by token.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from rro.config import Config, parse_config
from rro.types import Message, SamplingParams

LOADS = (
    (8, 5, True),
    (8, 5, False),
    (8, 1, False),
    (1, 1, True),
    (1, 1, False),
)  # contexts, samples of each, known
WORDS = "red blue green shirt shoes size price buy now back to search item page next large small cotton wool new"
# name: (backend, dtype)
BACKENDS = {
    "transformers-float32": ("transformers", "float32"),
    "transformers-bfloat16": ("transformers", "bfloat16"),
    "vllm-float32": ("vllm", "float32"),
    "vllm-bfloat16": ("vllm", "bfloat16"),
}
DRAWN = SamplingParams(temperature=1.0, max_new_tokens=40)
FIRST = SamplingParams(temperature=1.0, max_new_tokens=1)


def prompt(rng: random.Random) -> tuple[Message, ...]:
    """About 600 tokens of SmolLM2's that no other prompt begins with."""
    return (
        Message(
            "user", f"{rng.random()} " + " ".join(rng.choice(WORDS.split()) for _ in range(540))
        ),
    )


def recipe(model: str, backend: str, dtype: str, python: str | None, threads: int) -> Config:
    """One backend's settings."""
    vllm: dict[str, Any] = {
        "dtype": dtype,
        "options": json.loads(os.environ.get("RRO_BENCHMARK_VLLM", "{}")),
    }
    if python:
        vllm["python"] = python
    policy = {"backend": backend, "max_context": 1024, "prefix_cache_tokens": 40_000, "vllm": vllm}
    tree = {
        "name": "b",
        "threads": threads,
        "model": {"name": model, "dtype": dtype},
        "policy": policy,
    }
    return parse_config(tree, "benchmark")


def open_backend(config: Config, logs: Path) -> Any:
    """The policy, as rro.pipeline.weights opens it for a run without SFT."""
    if config.policy.backend == "vllm":
        from rro.policies.vllm.policy import open_vllm

        return open_vllm(config, None, "b/sft", logs)
    import torch

    from rro.models.loading import load_model
    from rro.policies.local.policy import TransformersPolicy

    torch.set_num_threads(config.threads or 1)
    model, tokenizer = load_model(config.model, None, train=False)
    settings = config.policy
    return TransformersPolicy(
        model,
        tokenizer,
        "b/sft",
        prefix_cache_tokens=settings.prefix_cache_tokens,
        max_context=1024,
    )


async def load(
    policy: Any, contexts: int, samples: int, known: bool, rng: random.Random
) -> list[float]:
    """Tokens, seconds and CPU seconds of `contexts` x `samples` answers, each asked for by a call
    of its own, as the sampler does. With `known`, the prompts have been answered once before."""
    prompts = [prompt(rng) for _ in range(contexts)]
    if known:
        await asyncio.gather(*(policy.sample(one, 1, FIRST, 0) for one in prompts))
    begun, used = time.perf_counter(), cpu_seconds()
    calls = [
        policy.sample(one, 1, DRAWN, 1000 * i + j)
        for i, one in enumerate(prompts)
        for j in range(samples)
    ]
    done = [one for answers in await asyncio.gather(*calls) for one in answers]
    tokens = sum(one.usage.generated_tokens for one in done)
    return [tokens, time.perf_counter() - begun, cpu_seconds() - used]


def cpu_seconds() -> float:
    """CPU time of this process and those below it."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(one.user + one.system for one in times)


async def answers(policy: Any) -> list[dict[str, Any]]:
    """Three answers to each of two prompts, with log-probabilities."""
    params, found = SamplingParams(max_new_tokens=40, logprobs=True), []
    for number in range(2):
        asked = prompt(random.Random(f"p{number}"))
        for one in await policy.sample(asked, 3, params, number):
            found.append(
                {
                    "prompt": number,
                    "ids": list(one.message.token_ids),
                    "logprobs": list(one.logprobs),
                }
            )
    return found


def work(name: str, model: str, python: str | None, arguments: argparse.Namespace) -> None:
    """One backend, in this process: reads what to do and prints what came of it, a line of JSON
    each."""
    backend, dtype = BACKENDS[name]
    begun = time.perf_counter()
    config = recipe(model, backend, dtype, python, arguments.threads)
    policy = open_backend(config, Path(arguments.out).parent / "benchmark-logs")
    opened = time.perf_counter() - begun
    asyncio.run(load(policy, 2, 2, False, random.Random(-1)))
    print(json.dumps(opened), flush=True)
    for line in sys.stdin:
        if (wanted := json.loads(line)) == "answers":
            print(json.dumps(asyncio.run(answers(policy))), flush=True)
            continue
        contexts, samples, known, _ = wanted  # the last makes prompts new
        drawn = asyncio.run(load(policy, contexts, samples, known, random.Random(line)))
        print(json.dumps(drawn), flush=True)
    asyncio.run(policy.close())


class Worker:
    """A backend's process."""

    def __init__(self, name: str, model: str, arguments: argparse.Namespace) -> None:
        self.name = name
        root = Path(__file__).parents[1]
        source = [str(root), str(root / "src")]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(arguments.threads),
            "PYTHONPATH": os.pathsep.join(source),
        }
        command = [
            sys.executable,
            "-m",
            "benchmarks.policies",
            *sys.argv[1:],
        ]
        command += ["--worker", name, "--model", model] + (
            ["--vllm", arguments.vllm] if arguments.vllm else []
        )
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, env=environment, stdin=pipe, stdout=pipe, text=True
        )
        self.row: dict[str, Any] = {"backend": name, "start_seconds": self._read(), "loads": {}}

    def draw(self, contexts: int, samples: int, known: bool, repeat: int) -> None:
        """One load; its (tokens, seconds, CPU seconds) go to the row."""
        drawn = self._ask([contexts, samples, known, repeat])
        self.row["loads"].setdefault(_name(contexts, samples, known), []).append(drawn)

    def answers(self) -> None:
        self.row["answers"] = self._ask("answers")

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, what: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line[:1] in "[0123456789":  # engines print other things too
                try:
                    return json.loads(line)
                except ValueError:
                    continue
        raise SystemExit(f"{self.name} ended by itself: what it said is above")


def errors(rows: list[dict[str, Any]], model: str) -> None:
    """Replaces each row's answers by how far their log-probabilities are from the model's own in
    float32, in nats."""
    import torch

    from rro.models.chat import ChatFormat
    from rro.models.loading import load_model

    reference, tokenizer = load_model(
        recipe(model, "transformers", "float32", None, 1).model, None, train=False
    )
    chat = ChatFormat(tokenizer)
    for row in rows:
        found: list[float] = []
        for one in row.pop("answers", ()):
            ids = chat.encode(prompt(random.Random(f"p{one['prompt']}")), True).ids
            with torch.inference_mode():
                logits = reference(torch.tensor([[*ids, *one["ids"]]])).logits[0, len(ids) - 1 : -1]
            expected = torch.log_softmax(logits, -1).gather(-1, torch.tensor(one["ids"])[:, None])[
                :, 0
            ]
            found += (torch.tensor(one["logprobs"]) - expected).abs().tolist()
        if found:
            cuts = statistics.quantiles(found, n=100)
            row["logprob_error"] = {
                "tokens": len(found),
                "median": cuts[49],
                "p99": cuts[98],
                "max": max(found),
            }


def _name(contexts: int, samples: int, known: bool) -> str:
    return f"{contexts}x{samples} {'known' if known else 'new'}"


def table(rows: list[dict[str, Any]]) -> str:
    """By load: median (range) of tokens/s, the ratio to the first backend at 1x1 new, tokens per
    CPU second."""
    one = statistics.median(
        tokens / seconds for tokens, seconds, _ in rows[0]["loads"][_name(1, 1, False)]
    )
    names = " | ".join(_name(*size) for size in LOADS)
    lines = [f"| backend | start, s | {names} |", "|---" * (len(LOADS) + 2) + "|"]
    for row in rows:
        cells = []
        for drawn in row["loads"].values():
            rates = [tokens / seconds for tokens, seconds, _ in drawn]
            middle, cpu = (
                statistics.median(rates),
                statistics.median(tokens / used for tokens, _, used in drawn),
            )
            cells.append(
                f"{middle:.0f} ({min(rates):.0f}-{max(rates):.0f}), x{middle / one:.1f}, {cpu:.0f}/CPU s"
            )
        lines.append(
            f"| {row['backend']} | {row['start_seconds']:.0f} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--vllm", metavar="PYTHON", default=os.environ.get("RRO_VLLM_PYTHON"), help="with vLLM"
    )
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--logprobs", action="store_true", help="compare log-probabilities too")
    parser.add_argument("--out", default="policies.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker, arguments.model, arguments.vllm, arguments)
        return
    compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    """All backends in turn; prints the table and writes the figures."""
    from rro.models.loading import smollm2_folder

    model, names = str(smollm2_folder()), arguments.backends
    if not arguments.vllm:
        names = [name for name in names if BACKENDS[name][0] != "vllm"]
        print("without --vllm: Transformers alone", file=sys.stderr)
    workers = [Worker(name, model, arguments) for name in names]
    for repeat in range(arguments.repeat):
        for size in LOADS:
            for worker in workers:
                worker.draw(*size, repeat)
        print(table([worker.row for worker in workers]), flush=True)
    for worker in workers if arguments.logprobs else ():
        worker.answers()
    for worker in workers:
        worker.end()
    rows = [worker.row for worker in workers]
    if arguments.logprobs:
        errors(rows, model)
    result = {"threads": arguments.threads, "load_average": os.getloadavg(), "rows": rows}
    Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
