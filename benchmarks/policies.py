"""Generated tokens per second through Policy.sample, by backend: SmolLM2, prompts of about 600
tokens, up to 40 new ones.

    python -m benchmarks.policies [--vllm PYTHON] [--backends NAME ...] [--repeat 3] [--threads N]
    [--out FILE]

Every backend has a process of its own, in which it is opened and warmed up. Then all draw each load
in turn, `--repeat` times, so that other work on the machine hits all alike; the others wait
meanwhile. In "new" loads no prompt was ever seen before; in "known" ones each was sampled from
once, as in exploration, where a history is mostly that of the step before. One row a backend:
tokens/s as median and range, the ratio to the first backend with one request at a time, and tokens
for each second of CPU time, which depends least on other work. `--logprobs` also compares
log-probabilities of some answers with Transformers in float32, token by token."""

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
from rro.policies.base import PolicyContext
from rro.types import Message, SamplingParams

LOADS = (
    (8, 5, True),
    (8, 5, False),
    (8, 1, False),
    (1, 1, True),
    (1, 1, False),
)  # contexts, samples of each, known
WORDS = (
    "red blue green shirt shoes size price buy now back to search item page next large small "
    "cotton wool new"
)
# name: (backend, dtype)
BACKENDS = {
    "transformers-float32": ("transformers", "float32"),
    "transformers-bfloat16": ("transformers", "bfloat16"),
    "vllm-float32": ("vllm", "float32"),
    "vllm-bfloat16": ("vllm", "bfloat16"),
}
SAMPLED = SamplingParams(temperature=1.0, max_new_tokens=40)
FIRST = SamplingParams(temperature=1.0, max_new_tokens=1)


def prompt(rng: random.Random) -> tuple[Message, ...]:
    """About 600 tokens by SmolLM2's tokenizer, with a beginning that no other prompt has."""
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
    """The policy, as a run without SFT opens it."""
    if config.policy.backend == "vllm":
        from rro.policies.vllm.policy import open_vllm
        from rro.policies.vllm.settings import VllmConfig

        options = VllmConfig(**(config.policy.model_extra or {})["vllm"])
        model, settings, threads = config.model, config.policy, config.threads
        context = PolicyContext("b/sft", "sft", model, settings, lambda: None, None, threads, logs)
        return open_vllm(options, context)
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
    """Tokens, seconds and CPU seconds of `contexts` x `samples` answers, each requested by a call
    of its own, as the sampler does. With `known`, the prompts have been sampled from before."""
    prompts = [prompt(rng) for _ in range(contexts)]
    if known:
        await asyncio.gather(*(policy.sample(messages, 1, FIRST, 0) for messages in prompts))
    wall, processor = time.perf_counter(), cpu_seconds()
    calls = [
        policy.sample(messages, 1, SAMPLED, 1000 * i + j)
        for i, messages in enumerate(prompts)
        for j in range(samples)
    ]
    completions = [one for answers in await asyncio.gather(*calls) for one in answers]
    tokens = sum(completion.usage.generated_tokens for completion in completions)
    return [tokens, time.perf_counter() - wall, cpu_seconds() - processor]


def cpu_seconds() -> float:
    """CPU seconds of this process and its descendants."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(time_.user + time_.system for time_ in times)


async def answers(policy: Any) -> list[dict[str, Any]]:
    """Three answers to each of two prompts, with log-probabilities."""
    params, rows = SamplingParams(max_new_tokens=40, logprobs=True), []
    for number in range(2):
        messages = prompt(random.Random(f"p{number}"))
        for completion in await policy.sample(messages, 3, params, number):
            ids, logprobs = list(completion.message.token_ids), list(completion.logprobs)
            rows.append({"prompt": number, "ids": ids, "logprobs": logprobs})
    return rows


def work(name: str, model: str, python: str | None, arguments: argparse.Namespace) -> None:
    """Run one backend in this process: reads commands and prints results, a line of JSON each."""
    backend, dtype = BACKENDS[name]
    start = time.perf_counter()
    config = recipe(model, backend, dtype, python, arguments.threads)
    policy = open_backend(config, Path(arguments.out).parent / "benchmark-logs")
    opened = time.perf_counter() - start
    asyncio.run(load(policy, 2, 2, False, random.Random(-1)))
    print(json.dumps(opened), flush=True)
    for line in sys.stdin:
        if (command := json.loads(line)) == "answers":
            print(json.dumps(asyncio.run(answers(policy))), flush=True)
            continue
        # the last makes prompts new
        contexts, samples, known, _ = command
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
        """Measure one load; its tokens, seconds and CPU seconds go to the row."""
        drawn = self._run([contexts, samples, known, repeat])
        self.row["loads"].setdefault(_name(contexts, samples, known), []).append(drawn)

    def answers(self) -> None:
        """Put some answers into the row."""
        self.row["answers"] = self._run("answers")

    def end(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _run(self, command: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # engines print other lines too
            if line[:1] in "[0123456789":
                try:
                    return json.loads(line)
                except ValueError:
                    continue
        raise SystemExit(f"{self.name} ended by itself: its output is above")


def errors(rows: list[dict[str, Any]], model: str) -> None:
    """Replace each row's answers by the differences of their log-probabilities from the model's own
    in float32, in nats."""
    import torch

    from rro.models.chat import ChatFormat
    from rro.models.loading import load_model

    reference, tokenizer = load_model(
        recipe(model, "transformers", "float32", None, 1).model, None, train=False
    )
    chat = ChatFormat(tokenizer)
    for row in rows:
        differences: list[float] = []
        for answer in row.pop("answers", ()):
            ids = chat.encode(prompt(random.Random(f"p{answer['prompt']}")), True).ids
            sampled = torch.tensor(answer["ids"])
            with torch.inference_mode():
                logits = reference(torch.tensor([[*ids, *answer["ids"]]])).logits[0]
            logprobs = torch.log_softmax(logits[len(ids) - 1 : -1], -1)
            expected = logprobs.gather(-1, sampled[:, None])[:, 0]
            differences += (torch.tensor(answer["logprobs"]) - expected).abs().tolist()
        if differences:
            quantiles = statistics.quantiles(differences, n=100)
            row["logprob_error"] = {
                "tokens": len(differences),
                "median": quantiles[49],
                "p99": quantiles[98],
                "max": max(differences),
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
            spread = f"{middle:.0f} ({min(rates):.0f}-{max(rates):.0f})"
            cells.append(f"{spread}, x{middle / one:.1f}, {cpu:.0f}/CPU s")
        lines.append(
            f"| {row['backend']} | {row['start_seconds']:.0f} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--vllm",
        metavar="PYTHON",
        default=os.environ.get("RRO_VLLM_PYTHON"),
        help="of an environment with vLLM",
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
