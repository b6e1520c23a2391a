"""vLLM's asynchronous engine in this process, as a policy.

The engine belongs to one event loop, and each stage of a run has its own; so it lives in a loop of
its own, in a thread. Its model works in processes that it starts itself, which end with this one.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rro.errors import PolicyError, RroError
from rro.models.chat import ChatFormat
from rro.policies.api.backoff import Fault
from rro.policies.api.loop_thread import LoopThread
from rro.policies.api.wire import answer_from_ids
from rro.policies.vllm import watchdog
from rro.policies.vllm.options import Weights
from rro.policies.vllm.shared import give_back
from rro.seeds import derive_seed
from rro.types import Completion, Message, SamplingParams, Source, Usage


class LocalEngine:
    """One running engine. `context` is the most tokens of prompt and answer together."""

    def __init__(self, options: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        """Starts it and waits. `options`: engine arguments; `environment`: variables that its
        processes get. Raises RroError where it does not start; what it said is on standard
        error."""
        self.options, self.context = dict(options), int(options["max_model_len"])
        self._numbers, self._adapters = itertools.count(1), dict[Path, Any]()
        self._thread = LoopThread("vLLM's engine")
        os.environ.update(environment)  # which the engine's processes inherit
        before = multiprocessing.active_children()
        try:
            self._llm = self._thread.do_now(self._start())
            self._below = _below(
                [one for one in multiprocessing.active_children() if one not in before]
            )
            self._leash = _hold(self._below)
        except Exception as error:
            self._thread.stop()
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise RroError(
                f"vLLM did not start: {reason[0]} (its own words are above; policy.vllm.options sets its arguments)"
            ) from error
        finally:
            for name in environment:  # none of them was set before
                os.environ.pop(name, None)

    async def _start(self) -> Any:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        try:
            arguments = AsyncEngineArgs(disable_log_stats=True, **self.options)
        except TypeError as error:
            raise RroError(f"policy.vllm.options: {error}") from None
        return AsyncLLM.from_engine_args(arguments)

    def load(self, adapter: Path) -> None:
        """As rro.policies.vllm.shared.Engine says."""
        from vllm.lora.request import LoRARequest

        if adapter in self._adapters:
            return
        request = LoRARequest(str(adapter), next(self._numbers), str(adapter))
        try:
            self._thread.do_now(self._llm.add_lora(request))
        except Exception as error:
            raise RroError(f"vLLM cannot load the adapter {adapter}: {error}") from error
        self._adapters[adapter] = request

    async def draw(
        self, prompt: Sequence[int], sampling: Sequence[Any], adapter: Path | None
    ) -> list[Any]:
        """One vLLM request and its output for each of `sampling`; from a coroutine in any loop. If
        that is cancelled, or one of them fails, the others are aborted."""
        return await self._thread.do(self._all(list(prompt), sampling, self._adapters.get(adapter)))  # type: ignore[arg-type]

    async def _all(self, prompt: list[int], sampling: Sequence[Any], lora: Any) -> list[Any]:
        tasks = [asyncio.ensure_future(self._one(prompt, params, lora)) for params in sampling]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _one(self, prompt: list[int], params: Any, lora: Any) -> Any:
        answers = self._llm.generate(
            {"prompt_token_ids": prompt}, params, str(next(self._numbers)), lora_request=lora
        )
        return [output async for output in answers][-1]

    @property
    def dead(self) -> bool:
        """Whether it has failed for good."""
        return bool(self._llm.errored)

    def stop(self) -> None:
        """Abort what is in flight, end the engine's processes and the thread."""
        if not self._thread.refuse():
            return
        self._llm.shutdown()
        _wait_for(self._below)
        self._leash.communicate(b".")
        self._thread.stop()


def _below(children: Sequence[Any]) -> list[Any]:
    """The processes of multiprocessing's `children`, and all that these have started."""
    import psutil  # vLLM needs it too

    found = []
    for child in children:
        own = psutil.Process(child.pid)
        found += [own, *own.children(recursive=True)]
    return found


def _hold(processes: Sequence[Any]) -> subprocess.Popen[bytes]:
    """What ends the engine's processes where this one is killed: vLLM would leave them."""
    command = [sys.executable, watchdog.__file__, "hold", *(str(one.pid) for one in processes)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def _wait_for(processes: Sequence[Any]) -> None:
    """Return when the engine's processes are gone; vLLM only asks them to go. The last ones are
    killed."""
    import psutil

    _, left = psutil.wait_procs(processes, timeout=watchdog.GRACE)
    for one in left:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(left, timeout=watchdog.GRACE)


class VllmPolicy:
    """Samples from an engine in this process, as `rro.policies.base.Policy` says.

    A completion's `token_ids` are those sampled, the end-of-turn token included; its
    log-probabilities are of the model at temperature 1. Sample i is decided by derive_seed(seed, i)
    alone, up to rounding, as in TransformersPolicy; but the random numbers are vLLM's, so its
    answers are others than those of the Transformers backend."""

    def __init__(self, engine: LocalEngine, weights: Weights, chat: ChatFormat, name: str) -> None:
        """`engine` must run `weights.whole` and have loaded `weights.adapter`; closing the policy
        gives it back."""
        self.name = name
        self._engine, self._weights, self._chat, self._open = engine, weights, chat, True
        self.provenance: Mapping[str, Any] = MappingProxyType(
            {
                "backend": "vllm",
                "engine": "in process",
                "dtype": engine.options["dtype"],
                "model": weights.whole,
                "adapter": str(weights.adapter or ""),
                "token_ids": True,
                "logprobs": True,
                "context": engine.context,
            }
        )

    async def sample(
        self, messages: Sequence[Message], n: int, params: SamplingParams, seed: int
    ) -> list[Completion]:
        """Draw `n` answers. Raises UsageError for messages that the chat template cannot carry,
        PolicyError for a request that failed, RroError if the policy is closed or the engine is
        dead."""
        if not self._open:
            raise RroError(f"policy {self.name} is closed")
        prompt = self._chat.encode(messages, add_generation_prompt=True).ids
        room = min(params.max_new_tokens, self._engine.context - len(prompt))
        if room < 1:
            empty = Message("assistant", "", Source.POLICY, ())
            return [
                Completion(empty, "context", self.name, logprobs=() if params.logprobs else None)
            ] * n
        begun = time.perf_counter()
        sampling = [self._sampling(params, room, derive_seed(seed, number)) for number in range(n)]
        try:
            outputs = await self._engine.draw(prompt, sampling, self._weights.adapter)
            return [
                self._completion(one, room, params, (time.perf_counter() - begun) / n)
                for one in outputs
            ]
        except (RroError, asyncio.CancelledError):
            raise
        except Exception as error:  # whatever vLLM raises
            if self._engine.dead:
                raise RroError(
                    f"vLLM's engine died ({error}); its own words are above. Resume the run"
                ) from error
            raise PolicyError(
                f"policy {self.name} failed: {type(error).__name__}: {error}"
            ) from error

    async def close(self) -> None:
        """Give the engine back; the last of its policies ends it."""
        if self._open:
            self._open = False
            await asyncio.to_thread(give_back, self._engine)

    def _sampling(self, params: SamplingParams, room: int, seed: int) -> Any:
        from vllm import SamplingParams as Sampling
        from vllm.sampling_params import RequestOutputKind

        return Sampling(
            temperature=params.temperature,
            top_p=params.top_p,
            max_tokens=room,
            stop=list(params.stop),
            stop_token_ids=sorted(self._chat.end_ids),
            seed=seed if params.temperature else None,
            logprobs=0 if params.logprobs else None,  # of the sampled token alone
            detokenize=bool(params.stop),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _completion(
        self, output: Any, room: int, params: SamplingParams, seconds: float
    ) -> Completion:
        drawn = output.outputs[0]
        if drawn.finish_reason not in ("stop", "length"):
            raise PolicyError(
                f"vLLM ended an answer for the reason {drawn.finish_reason!r}, so it is missing"
            )
        ids = tuple(drawn.token_ids)
        logprobs = None
        if params.logprobs:
            logprobs = [float(at[id_].logprob) for at, id_ in zip(drawn.logprobs, ids, strict=True)]
        try:
            answer = answer_from_ids(self._chat, ids, logprobs, drawn.finish_reason, room, params)
        except Fault as fault:
            raise PolicyError(f"vLLM gave half an answer: {fault}") from None
        kept = len(answer.ids or ())
        usage = Usage(
            1, len(output.prompt_token_ids), output.num_cached_tokens or 0, kept, seconds=seconds
        )
        return Completion(
            Message("assistant", answer.text, Source.POLICY, answer.ids),
            answer.finish,
            self.name,
            usage,
            answer.logprobs,
        )
