"""Chat templates of current models, as TRL ships them: which work, and that what is sampled after a
history is trained after the same tokens, also where a template drops earlier thoughts."""

from dataclasses import replace

import pytest
from tool_toys import FOLDER, asks, calls, result, tokenizer_of

from rro.errors import UsageError
from rro.models.chat import ChatFormat
from rro.types import Message, Source

IM, EOT = "<|im_end|>", "<|eot_id|>"
WORK = {
    "qwen2_5": IM,
    "qwen3": IM,
    "qwen3_instruct_2507": IM,
    "qwen3_5_think": IM,
    "qwen3_5_nothink": IM,
    "qwen3_6": IM,
    "llama3": EOT,
    "llama3_1": EOT,
    "llama3_2": EOT,
    "gemma": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    "lfm2": IM,
    "lfm2_2_5": IM,
    "cohere2": "<|END_OF_TURN_TOKEN|>",
    "deepseek_r1_distill": "<｜end▁of▁sentence｜>",
    "deepseekv3": "<｜end▁of▁sentence｜>",
}
REFUSED = {
    "gptoss": "<|return|>",
    "phi3": "<|end|>",
    "phi3_5": "<|end|>",
    "nemotron_3_nano": IM,
    "nemotron_3_super": IM,
}
TOOLS = ("qwen2_5", "qwen3", "qwen3_instruct_2507", "qwen3_5_think", "qwen3_5_nothink", "llama3_1")
THOUGHT = "<think>\nhm </think> no\n</think>\n\nyes"


def tokenizer(name, end):
    return tokenizer_of((FOLDER / f"{name}.jinja").read_text(), end)


@pytest.fixture(scope="module")
def formats():
    return {name: ChatFormat(tokenizer(name, end)) for name, end in WORK.items()}


def sampled(form, text, **changes):
    ids = (*form.tokenizer.encode(text, add_special_tokens=False), form.end_of_turn)
    return replace(Message("assistant", text, Source.POLICY, ids), **changes)


def check_steps(form, messages):
    """Each answer follows exactly the prompt that it was sampled after, and keeps its tokens."""
    whole = form.encode(messages, False)
    for number, message in enumerate(messages):
        if message.role != "assistant":
            continue
        prompt = form.encode(messages[:number], True).ids
        assert whole.ids[: len(prompt)] == prompt
        end = len(prompt) + len(message.token_ids)
        assert tuple(whole.ids[len(prompt) : end]) == message.token_ids
        assert all(whole.mask[len(prompt) : end])
    assert sum(whole.mask) == sum(len(m.token_ids or ()) for m in messages)


@pytest.mark.parametrize("name", WORK)
@pytest.mark.parametrize("text", ["yes", "", " ", THOUGHT, "<think>\nhm"])
def test_each_step_is_trained_after_the_tokens_it_was_sampled_after(formats, name, text):
    form = formats[name]
    messages = []
    for number in range(3):
        messages += [Message("user", f"question {number}"), sampled(form, f"{text}")]
    check_steps(form, messages)
    turns = [form.tokenizer.decode(form.encode(messages[:n], True).ids) for n in (1, 3, 5)]
    for number, turn in enumerate(turns):
        assert turn.count("question") == number + 1
        assert turn.count(text) >= number * bool(text.strip())


@pytest.mark.parametrize("name", TOOLS)
def test_so_are_calls_of_tools(formats, name):
    form = formats[name]
    messages = [asks()]
    for text in ("a", THOUGHT, "c"):
        made = calls(("run_sql", {"query": text}), source=Source.POLICY)
        action = sampled(form, f"{text} call", tool_calls=made.tool_calls)
        messages += [action, result(action, f"result {text}")]
    check_steps(form, messages[:-1])
    assert form.tokenizer.decode(form.encode(messages, True).ids).count("result") >= 3


@pytest.mark.parametrize("name", WORK)
def test_an_experts_answer_is_what_the_template_writes_last(formats, name):
    """Where the generation prompt begins an answer. An answer that has ended stays as it was."""
    form = formats[name]
    chat = [
        Message("user", "one"),
        Message("assistant", "first", Source.EXPERT),
        Message("user", "two"),
        Message("assistant", "second", Source.EXPERT),
    ]
    whole = form.encode(chat, False)
    prompt = form.encode(chat[:3], True).ids
    assert whole.ids[: len(prompt)] == prompt
    written = form.tokenizer.apply_chat_template([m.chat() for m in chat], tokenize=False)
    last = form.tokenizer.decode(whole.ids[len(prompt) :])
    assert written.rstrip().endswith(last.rstrip())
    assert last.startswith("second") or "think" in last


@pytest.mark.parametrize("name", REFUSED)
def test_other_templates_are_refused_in_one_sentence(name):
    with pytest.raises(UsageError, match=r"model\.chat_template"):
        ChatFormat(tokenizer(name, REFUSED[name]))


def test_tokens_around_thoughts_do_not_end_an_answer(formats):
    form = formats["qwen3"]
    ids = form.tokenizer.encode(THOUGHT, add_special_tokens=False)
    assert form.cut(ids) == (len(ids), False)
    assert form.cut([*ids, form.end_of_turn, *ids]) == (len(ids) + 1, True)
