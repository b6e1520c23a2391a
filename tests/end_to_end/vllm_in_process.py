"""Run by test_vllm.py in an environment with vLLM: both policies over one engine in this process,
what they said as JSON.

python vllm_in_process.py MODEL ADAPTER DTYPE OUT"""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rro.config import parse_config
from rro.policies.vllm.backend import open_vllm
from rro.policies.vllm.shared import _used
from rro.types import Message, SamplingParams

QUESTION = (Message("system", "You are terse."), Message("user", "Name three colours, then stop."))
DRAWN = SamplingParams(max_new_tokens=24, logprobs=True)


def recipe(model, dtype, python=None):
    """The settings that both ways of running vLLM are tested with."""
    vllm = {"dtype": dtype} | ({"python": str(python)} if python else {})
    policy = {"backend": "vllm", "max_context": 1024, "prefix_cache_tokens": 8000, "vllm": vllm}
    return parse_config(
        {"name": "t", "threads": 1, "model": {"name": str(model)}, "policy": policy}, "test"
    )


async def ask(policy):
    """What every engine is asked: drawn, again in another company, greedy, with a stop string, too
    long, cancelled, a known history."""
    first = await policy.sample(QUESTION, 3, DRAWN, 5)
    again = (await asyncio.gather(*(policy.sample(QUESTION, n, DRAWN, 5) for n in (1, 3))))[1]
    greedy = await policy.sample(
        QUESTION, 1, SamplingParams(temperature=0, max_new_tokens=12, logprobs=True), 1
    )
    stopped = await policy.sample(
        QUESTION, 2, SamplingParams(max_new_tokens=24, stop=("e",), logprobs=True), 5
    )
    full = await policy.sample((Message("user", "word " * 3000),), 2, DRAWN, 5)
    cancelled = asyncio.create_task(
        policy.sample(QUESTION, 2, SamplingParams(max_new_tokens=900), 6)
    )
    await asyncio.sleep(0.2)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    alive = await policy.sample(QUESTION, 1, DRAWN, 5)
    known = [
        await policy.sample(
            (Message("user", "word " * 200),), 1, SamplingParams(max_new_tokens=2), 5
        )
        for _ in "12"
    ][-1]
    answers = {
        "known": known,
        "first": first,
        "again": again,
        "greedy": greedy,
        "stopped": stopped,
        "full": full,
        "alive": alive,
    }
    return {name: [asdict(one) for one in given] for name, given in answers.items()} | {
        "cancelled": cancelled.cancelled()
    }


def main(model, adapter, dtype, out):
    config = recipe(model, dtype)
    explorer = open_vllm(config, Path(adapter), "t/rro-1", Path(out).parent)
    pricer = open_vllm(config, None, "t/sft", Path(out).parent)
    said = {
        "engines": len(_used),
        "provenance": [dict(explorer.provenance), dict(pricer.provenance)],
    }
    said["explorer"] = asyncio.run(ask(explorer))
    said["pricer"] = asyncio.run(ask(pricer))  # another event loop, as each stage of a run has
    asyncio.run(explorer.close())
    said["shared"] = len(asyncio.run(pricer.sample(QUESTION, 1, DRAWN, 5)))
    asyncio.run(pricer.close())
    said["left"] = len(_used)
    Path(out).write_text(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
