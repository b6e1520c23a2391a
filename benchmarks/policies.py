"""Generated tokens per second through Policy.sample, by backend: SmolLM2, prompts of about 600 tokens, 40 new ones.

    python -m benchmarks.policies [--vllm PYTHON] [--backends NAME ...] [--repeat 3] [--threads N] [--out FILE]

Every backend runs in a process of its own (their environments differ), which opens the policy, warms it up on prompts of its
own, and then draws each load `--repeat` times from prompts never seen before. One row a backend: tokens/s as median and range,
and the ratio to drawing one by one with the Transformers backend of the same run. Only ratios from one run compare: other
work on the machine changes all of them. With `--logprobs` the answers' log-probabilities are compared with Transformers in
float32 as well, token by token.
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

from rro.config import Config, parse_config
from rro.types import Message, SamplingParams

LOADS = ((8, 5), (8, 1), (1, 1))  # contexts x samples of each
WORDS = "red blue green shirt shoes size price buy now back to search item page next large small cotton wool new"
# name: (backend, dtype, where vLLM runs)
BACKENDS = {
    "transformers-float32": ("transformers", "float32", ""),
    "transformers-bfloat16": ("transformers", "bfloat16", ""),
    "vllm-server-float32": ("vllm", "float32", "server"),
    "vllm-server-bfloat16": ("vllm", "bfloat16", "server"),
    "vllm-in-process-float32": ("vllm", "float32", "here"),
    "vllm-in-process-bfloat16": ("vllm", "bfloat16", "here"),
}
DRAWN = SamplingParams(temperature=1.0, max_new_tokens=40)


def prompt(rng: random.Random) -> tuple[Message, ...]:
    """About 600 tokens of SmolLM2's that no other prompt begins with."""
    return (Message("user", f"{rng.random()} " + " ".join(rng.choice(WORDS.split()) for _ in range(540))),)


def recipe(model: str, backend: str, dtype: str, python: str | None, threads: int) -> Config:
    """One backend's settings."""
    vllm: dict[str, Any] = {"dtype": dtype, "options": json.loads(os.environ.get("RRO_BENCHMARK_VLLM", "{}"))}
    if python:
        vllm["python"] = python
    policy = {"backend": backend, "max_context": 1024, "prefix_cache_tokens": 40_000, "vllm": vllm}
    tree = {"name": "b", "threads": threads, "model": {"name": model, "dtype": dtype}, "policy": policy}
    return parse_config(tree, "benchmark")


def open_backend(config: Config, logs: Path) -> Any:
    """The policy, as rro.weights opens it for a run without SFT."""
    if config.policy.backend == "vllm":
        from rro.policies.vllm import open_vllm

        return open_vllm(config, None, "b/sft", logs)
    import torch

    from rro.policies.models import load_model
    from rro.policies.transformers import TransformersPolicy

    torch.set_num_threads(config.threads or 1)
    model, tokenizer = load_model(config.model, None, train=False)
    settings = config.policy
    return TransformersPolicy(
        model, tokenizer, "b/sft", prefix_cache_tokens=settings.prefix_cache_tokens, max_context=1024
    )


async def load(policy: Any, contexts: int, samples: int, rng: random.Random) -> float:
    """Tokens per second of `contexts` x `samples` answers, each asked for by a call of its own, as the sampler does."""
    prompts = [prompt(rng) for _ in range(contexts)]
    begun = time.perf_counter()
    calls = [policy.sample(one, 1, DRAWN, 1000 * i + j) for i, one in enumerate(prompts) for j in range(samples)]
    done = [one for answers in await asyncio.gather(*calls) for one in answers]
    return sum(one.usage.generated_tokens for one in done) / (time.perf_counter() - begun)


async def measure(policy: Any, repeat: int) -> dict[str, list[float]]:
    """Tokens per second by load."""
    await load(policy, 2, 2, random.Random(-1))
    rounds = [[await load(policy, *size, random.Random(f"{size}{r}")) for size in LOADS] for r in range(repeat)]
    return {f"{c}x{s}": [row[i] for row in rounds] for i, (c, s) in enumerate(LOADS)}


async def answers(policy: Any) -> list[dict[str, Any]]:
    """Three answers to each of two prompts, with log-probabilities."""
    params, found = SamplingParams(max_new_tokens=40, logprobs=True), []
    for number in range(2):
        asked = prompt(random.Random(f"p{number}"))
        for one in await policy.sample(asked, 3, params, number):
            found.append({"prompt": number, "ids": list(one.message.token_ids), "logprobs": list(one.logprobs)})
    return found


def work(name: str, model: str, python: str | None, arguments: argparse.Namespace) -> None:
    """One backend, in this process; the last line that it prints is its result."""
    backend, dtype, where = BACKENDS[name]
    begun = time.perf_counter()
    config = recipe(model, backend, dtype, python if where == "server" else None, arguments.threads)
    policy = open_backend(config, Path(arguments.out).parent / "benchmark-logs")
    opened = time.perf_counter() - begun
    rates = asyncio.run(measure(policy, arguments.repeat))
    said = asyncio.run(answers(policy)) if arguments.logprobs else []
    asyncio.run(policy.close())
    print(json.dumps({"backend": name, "start_seconds": opened, "tokens_per_second": rates, "answers": said}))


def errors(rows: list[dict[str, Any]], model: str) -> None:
    """Replaces each row's answers by how far their log-probabilities are from the model's own in float32, in nats."""
    import torch

    from rro.policies.chat import ChatFormat
    from rro.policies.models import load_model

    reference, tokenizer = load_model(recipe(model, "transformers", "float32", None, 1).model, None, train=False)
    chat = ChatFormat(tokenizer)
    for row in rows:
        found: list[float] = []
        for one in row.pop("answers"):
            ids = chat.encode(prompt(random.Random(f"p{one['prompt']}")), True).ids
            with torch.inference_mode():
                logits = reference(torch.tensor([[*ids, *one["ids"]]])).logits[0, len(ids) - 1 : -1]
            expected = torch.log_softmax(logits, -1).gather(-1, torch.tensor(one["ids"])[:, None])[:, 0]
            found += (torch.tensor(one["logprobs"]) - expected).abs().tolist()
        if found:
            cuts = statistics.quantiles(found, n=100)
            row["logprob_error"] = {"tokens": len(found), "median": cuts[49], "p99": cuts[98], "max": max(found)}


def table(rows: list[dict[str, Any]]) -> str:
    """Median (range) by load, and the ratio to one by one with Transformers."""
    base = next((row for row in rows if row["backend"].startswith("transformers")), rows[0])
    one = statistics.median(base["tokens_per_second"]["1x1"])
    lines = [
        f"ratios to {base['backend']} at 1x1",
        "| backend | start s | " + " | ".join(f"{c}x{s}" for c, s in LOADS) + " |",
    ]
    for row in rows:
        cells = [
            f"{statistics.median(r):.0f} ({min(r):.0f}-{max(r):.0f}), x{statistics.median(r) / one:.1f}"
            for r in row["tokens_per_second"].values()
        ]
        lines.append(f"| {row['backend']} | {row['start_seconds']:.0f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", metavar="PYTHON", default=os.environ.get("RRO_VLLM_PYTHON"), help="with vLLM")
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
    from rro.policies.models import smollm2_folder

    model, rows = str(smollm2_folder()), []
    source = [path for path in sys.path if path]
    for name in arguments.backends:
        here = BACKENDS[name][2] == "here"
        if BACKENDS[name][0] == "vllm" and not arguments.vllm:
            print(f"{name}: left out, no --vllm", file=sys.stderr)
            continue
        environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
        if here:  # of our own code alone: the other environment has its own packages
            source = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "src")]
        environment["PYTHONPATH"] = os.pathsep.join(source)
        command = [arguments.vllm if here else sys.executable, "-m", "benchmarks.policies", *sys.argv[1:]]
        command += ["--worker", name, "--model", model] + (["--vllm", arguments.vllm] if arguments.vllm else [])
        ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
        if ran.returncode:
            print(f"{name}: failed ({ran.returncode})", file=sys.stderr)
            continue
        rows.append(json.loads(ran.stdout.strip().splitlines()[-1]) | {"load_average": os.getloadavg()[0]})
        print(table(rows[-1:]), flush=True)
    if arguments.logprobs:
        errors(rows, model)
    Path(arguments.out).write_text(json.dumps({"threads": arguments.threads, "rows": rows}, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
