"""The local policy: seeds, usage, limits, stop strings, failures, cancellation."""

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import torch
from tiny_model import SAMPLED, WORDS, expected_logprobs
from tool_toys import FOLDER, tokenizer_of
from transformers import LlamaConfig, LlamaForCausalLM

from rro.errors import PolicyError, RroError, UsageError
from rro.policies.local.policy import TransformersPolicy
from rro.types import Completion, Message, SamplingParams, Source

GREEDY = SamplingParams(temperature=0.0, max_new_tokens=12, logprobs=True)


def prompt(seed: int, words: int = 12) -> list[Message]:
    generator = random.Random(seed)
    return [Message("user", " ".join(generator.choices(WORDS, k=words)))]


def run(
    tiny: tuple[Any, Any], use: Callable[[TransformersPolicy], Awaitable[Any]], **options: Any
) -> Any:
    async def body() -> Any:
        policy = TransformersPolicy(*tiny, "tiny", **options)
        try:
            return await use(policy)
        finally:
            await policy.close()

    return asyncio.run(asyncio.wait_for(body(), 60))


def many(
    requests: Sequence[tuple[list[Message], int, SamplingParams, int]],
) -> Callable[..., Awaitable[list[Any]]]:
    async def use(policy: TransformersPolicy) -> list[list[Completion]]:
        return await asyncio.gather(*(policy.sample(*request) for request in requests))

    return use


def until_control(tokenizer: Any, ids: list[int]) -> list[int]:
    """Sampled ids as a message: with the first end-of-turn token, without any other special one."""
    special = set(tokenizer.all_special_ids)
    end = next((number for number, id_ in enumerate(ids) if id_ in special), len(ids))
    return ids[: end + 1] if ids[end : end + 1] == [tokenizer.eos_token_id] else ids[:end]


def test_a_sampled_control_token_is_not_part_of_the_message(tiny: tuple[Any, Any]) -> None:
    """The history holds what the environment saw, and no turn that the policy opened."""
    special = set(tiny[1].all_special_ids)
    requests = [(prompt(i, 20), 4, SamplingParams(max_new_tokens=200), i) for i in range(8)]
    answers = [answer for answers in run(tiny, many(requests)) for answer in answers]
    for answer in answers:
        ids = answer.message.token_ids
        assert special.isdisjoint(ids[:-1])
        assert not ids or ids[-1] not in special - {tiny[1].eos_token_id}
        shown = [id_ for id_ in ids if id_ not in special]
        assert answer.message.content == tiny[1].decode(shown)
    cut = [a for a in answers if a.usage.generated_tokens > len(a.message.token_ids)]
    assert cut
    assert {answer.finish for answer in cut} == {"stop"}


def test_greedy_answers_are_those_of_plain_generate(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    answers = run(tiny, many([(prompt(i, 3 + 7 * i), 1, GREEDY, i) for i in range(8)]), max_batch=5)
    for i, (answer,) in enumerate(answers):
        ids = tokenizer.apply_chat_template(
            [m.chat() for m in prompt(i, 3 + 7 * i)],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        plain = model.generate(**ids, max_new_tokens=12, do_sample=False)[
            0, ids["input_ids"].shape[1] :
        ]
        message = until_control(tokenizer, plain.tolist())
        assert list(answer.message.token_ids) == message
        assert answer.message.content == tokenizer.decode(message, skip_special_tokens=True)
        assert (answer.message.role, answer.message.source, answer.policy) == (
            "assistant",
            Source.POLICY,
            "tiny",
        )


OPTIONS = [
    {"max_batch": 1, "prefix_cache_tokens": 0},
    {"max_batch": 16},
    {"max_batch": 16, "prefix_cache_tokens": 0},
    {"max_batch": 16, "prefix_cache_tokens": 160},
    {"max_batch": 16, "packed_passes": False},
    {"max_batch": 16, "shared_prefixes": False},
]


def episodes(policy: TransformersPolicy) -> Awaitable[list[list[Message]]]:
    """Three tasks with three rollouts each: histories that share beginnings and grow by their own
    answers."""

    async def rollout(task: int, number: int) -> list[Message]:
        history = prompt(task, 20)
        for step in range(3):
            answer = (await policy.sample(history, 1, SAMPLED, 100 * task + 10 * number + step))[0]
            history = [*history, answer.message, *prompt(1000 + len(answer.message.content), 9)]
        return history

    return asyncio.gather(*(rollout(task, number) for task in range(3) for number in range(3)))


def test_same_seeds_give_same_answers_in_any_batch_with_and_without_cache(
    tiny: tuple[Any, Any],
) -> None:
    """All of them, in float32 on this model. Elsewhere rounding may change a token
    (docs/policies.md)."""
    first, *others = (run(tiny, episodes, **options) for options in OPTIONS)
    assert (
        len(
            {
                message.content
                for history in first
                for message in history
                if message.role == "assistant"
            }
        )
        > 15
    )
    for other in others:
        assert other == first


def test_logprobs_are_those_of_the_model(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    requests = [(prompt(i % 3, 30), 2, (SAMPLED, GREEDY)[i % 2], i) for i in range(9)]
    for (messages, *_), answers in zip(
        requests, run(tiny, many(requests), max_batch=7), strict=True
    ):
        text = tokenizer.apply_chat_template(
            [m.chat() for m in messages], tokenize=False, add_generation_prompt=True
        )
        for answer in answers:
            expected = expected_logprobs(model, tokenizer.encode(text), answer.message.token_ids)
            assert torch.allclose(torch.tensor(answer.logprobs), expected, atol=1e-4)
            assert len(answer.logprobs) == len(answer.message.token_ids)
            # a control token that ended the message was generated, too
            assert answer.usage.generated_tokens - len(answer.message.token_ids) in (0, 1)


def test_sample_i_depends_on_the_seed_and_i_alone(tiny: tuple[Any, Any]) -> None:
    three, five, other = run(
        tiny, many([(prompt(0), n, SAMPLED, seed) for n, seed in ((3, 7), (5, 7), (5, 8))])
    )
    assert [a.message for a in three] == [a.message for a in five[:3]]
    assert len({a.message for a in five}) > 1
    assert [a.message for a in five] != [a.message for a in other]


def test_usage_counts_cached_prompt_tokens(tiny: tuple[Any, Any]) -> None:
    async def use(policy: TransformersPolicy) -> tuple[list[Completion], list[Completion]]:
        first = await policy.sample(prompt(0, 30), 2, SAMPLED, 0)
        return first, await policy.sample(
            [*prompt(0, 30), first[0].message, Message("user", "next")], 1, SAMPLED, 0
        )

    first, (second,) = run(tiny, use)
    length = first[0].usage.prompt_tokens
    assert [a.usage.cached_tokens for a in first] == [
        0,
        length,
    ]  # the second one's prompt is the first one's
    assert second.usage.prompt_tokens > length + len(first[0].message.token_ids)
    known = length + len(first[0].message.token_ids) - 1
    assert known - 15 <= second.usage.cached_tokens <= known
    assert all(a.usage.policy_calls == 1 and a.usage.seconds > 0 for a in [*first, second])
    (uncached,) = run(tiny, use, prefix_cache_tokens=0)[1]
    assert uncached.usage.cached_tokens == 0


def test_stop_strings_end_an_answer_and_are_not_part_of_it(tiny: tuple[Any, Any]) -> None:
    tokenizer = tiny[1]
    ((free,),) = run(tiny, many([(prompt(3), 1, SAMPLED, 5)]))
    text = free.message.content
    stop = text[len(text) // 2 : len(text) // 2 + 2]
    params = SamplingParams(max_new_tokens=12, stop=("never", stop), logprobs=True)
    ((answer,),) = run(tiny, many([(prompt(3), 1, params, 5)]))
    assert answer.finish == "stop"
    assert answer.message.content == text[: text.index(stop)]
    ids = answer.message.token_ids
    assert ids == free.message.token_ids[: len(ids)]
    assert tokenizer.decode(ids, skip_special_tokens=True).startswith(answer.message.content)
    assert len(tokenizer.decode(ids[:-1], skip_special_tokens=True)) < len(answer.message.content)
    assert answer.logprobs == pytest.approx(free.logprobs[: len(ids)], abs=1e-4)


def test_an_answer_ends_at_its_limits(tiny: tuple[Any, Any]) -> None:
    long, short = SamplingParams(max_new_tokens=500), SamplingParams(max_new_tokens=1)
    requests = [
        (prompt(0, 20), 4, long, 0),
        (prompt(0, 20), 4, short, 0),
        (prompt(0, 400), 2, long, 0),
    ]
    unlimited, single, none = run(tiny, many(requests), max_context=150)
    for answer in unlimited:
        ids, generated = answer.message.token_ids, answer.usage.generated_tokens
        ended = ids[-1:] == (tiny[1].eos_token_id,) or generated > len(ids)
        assert answer.finish == ("stop" if ended else "length")
        assert ended or answer.usage.prompt_tokens + answer.usage.generated_tokens == 150
    assert {a.finish for a in (*unlimited, *single)} == {"stop", "length"}
    assert all(len(a.message.token_ids) <= 1 == a.usage.generated_tokens for a in single)
    assert [(a.finish, a.message.content, a.message.token_ids) for a in none] == [
        ("context", "", ())
    ] * 2


def test_a_failure_concerns_its_own_requests_only(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    poison = tokenizer.encode("~")[0]

    def fail(module: Any, args: Any, kwargs: Any) -> None:
        if (kwargs["input_ids"] == poison).any():
            raise ValueError("poisoned")

    async def use(policy: TransformersPolicy) -> list[Completion]:
        handle = model.register_forward_pre_hook(fail, with_kwargs=True)
        try:
            with pytest.raises(PolicyError, match="policy tiny failed: ValueError: poisoned"):
                await policy.sample([Message("user", "~")], 2, GREEDY, 0)
            return await policy.sample(prompt(0), 1, GREEDY, 0)
        finally:
            handle.remove()

    ((expected,),) = run(tiny, many([(prompt(0), 1, GREEDY, 0)]))
    assert run(tiny, use)[0].message == expected.message


def test_out_of_memory_halves_the_batch_and_changes_no_answer(tiny: tuple[Any, Any]) -> None:
    model, sizes = tiny[0], []

    def fail(limit: int) -> Callable[..., None]:
        def hook(module: Any, args: Any, kwargs: Any) -> None:
            sizes.append(kwargs["logits_to_keep"])  # rows in the pass
            if sizes[-1] > limit:
                raise torch.OutOfMemoryError("no memory")

        return hook

    async def use(policy: TransformersPolicy) -> list[list[Completion]]:
        handle = model.register_forward_pre_hook(fail(3), with_kwargs=True)
        try:
            return await many(requests)(policy)
        finally:
            handle.remove()

    async def hopeless(policy: TransformersPolicy) -> None:
        handle = model.register_forward_pre_hook(fail(0), with_kwargs=True)
        try:
            with pytest.raises(PolicyError, match="out of memory with one prompt of"):
                await policy.sample(prompt(0), 1, GREEDY, 0)
        finally:
            handle.remove()

    requests = [(prompt(i), 2, SAMPLED, i) for i in range(6)]
    expected = [[a.message for a in answers] for answers in run(tiny, many(requests))]
    assert [[a.message for a in answers] for answers in run(tiny, use, max_batch=12)] == expected
    assert max(sizes) > 3
    assert sizes[-1] <= 3
    run(tiny, hopeless)


def test_a_cancelled_request_leaves_and_the_others_stay(tiny: tuple[Any, Any]) -> None:
    async def use(policy: TransformersPolicy) -> tuple[list[Completion], bool]:
        endless = asyncio.create_task(
            policy.sample(prompt(0), 30, SamplingParams(max_new_tokens=200), 0)
        )
        other = asyncio.create_task(policy.sample(prompt(1), 1, GREEDY, 0))
        await asyncio.sleep(0.01)
        endless.cancel()
        answers = await other
        with pytest.raises(asyncio.CancelledError):
            await endless
        return answers + await policy.sample(prompt(1), 1, GREEDY, 0), policy.in_flight == 0

    (first, second), empty = run(tiny, use, max_batch=8)
    assert first.message == second.message
    assert empty


def test_closing_fails_what_is_in_flight(tiny: tuple[Any, Any]) -> None:
    async def use() -> None:
        policy = TransformersPolicy(*tiny, "tiny", max_batch=2)
        pending = asyncio.create_task(
            policy.sample(prompt(0), 50, SamplingParams(max_new_tokens=200), 0)
        )
        await asyncio.sleep(0.01)
        await policy.close()
        with pytest.raises(RroError, match="closed before it answered"):
            await pending
        with pytest.raises(RroError, match="is closed"):
            await policy.sample(prompt(0), 1, GREEDY, 0)

    asyncio.run(asyncio.wait_for(use(), 60))


def test_messages_that_the_template_cannot_express_are_a_usage_error(tiny: tuple[Any, Any]) -> None:
    async def use(policy: TransformersPolicy) -> None:
        with pytest.raises(UsageError):
            await policy.sample([], 1, GREEDY, 0)

    run(tiny, use)


def test_the_worker_ends_with_its_policy(tiny: tuple[Any, Any]) -> None:
    def workers() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "policy tiny"]

    async def use(policy: TransformersPolicy) -> None:
        assert len(workers()) == 1

    run(tiny, use)
    assert not workers()


def test_a_message_that_ends_inside_a_thought_says_nothing() -> None:
    """Where the prompt begins a thought, which has a limit of its own."""
    tokenizer = tokenizer_of((FOLDER / "qwen3_5_think.jinja").read_text(), "<|im_end|>")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
    )
    model = LlamaForCausalLM(config)
    question = [Message("user", "SELECT name")]

    async def use(policy: TransformersPolicy) -> list[Completion]:
        params = SamplingParams(max_new_tokens=40, max_thought_tokens=5, logprobs=True)
        return await policy.sample(question, 6, params, 1)

    answers = run((model, tokenizer), use)
    inside = [answer for answer in answers if answer.finish == "thought"]
    assert len(inside) > 2
    for answer in inside:
        assert answer.message.content == ""
        assert answer.message.thought
        assert answer.usage.thought_tokens == len(answer.message.token_ids) <= 5
        assert len(answer.logprobs) == len(answer.message.token_ids)
