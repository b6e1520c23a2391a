"""Chat templates of current models, as TRL ships them: which work and how, and that what is sampled
after a history is trained after the same tokens. Writes the table of docs/families.md: run with
RRO_WRITE_DOCS=1 where it changes."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from tool_toys import FOLDER, asks, calls, result, tokenizer_of

from rro.errors import UsageError
from rro.models.chat import ChatFormat
from rro.models.templates import SMOLLM2_TEMPLATE
from rro.types import Message, Source

IM, EOT, DEEPSEEK = "<|im_end|>", "<|eot_id|>", "<｜end▁of▁sentence｜>"
# File of TRL, the end of a turn, models.
FAMILIES = {
    "qwen2_5": (IM, "Qwen2.5, Qwen2.5-Coder"),
    "qwen3": (IM, "Qwen3"),
    "qwen3_instruct_2507": (IM, "Qwen3 2507 Instruct"),
    "qwen3_5_think": (IM, "Qwen3.5, thinking"),
    "qwen3_5_nothink": (IM, "Qwen3.5, not thinking"),
    "qwen3_6": (IM, "Qwen3.6"),
    "qwen3_8": (IM, "Qwen3.8"),
    "llama3": (EOT, "Llama 3"),
    "llama3_1": (EOT, "Llama 3.1"),
    "llama3_2": (EOT, "Llama 3.2"),
    "gemma": ("<end_of_turn>", "Gemma 1 and 2"),
    "gemma3": ("<end_of_turn>", "Gemma 3"),
    "gemma4": ("<turn|>", "Gemma 4"),
    "gemma4_v5": ("<turn|>", "Gemma 4, its fifth template"),
    "phi3": ("<|end|>", "Phi-3"),
    "phi3_5": ("<|end|>", "Phi-3.5"),
    "lfm2": (IM, "LFM2"),
    "lfm2_v2": (IM, "LFM2, its second template"),
    "lfm2_2_5_v2": (IM, "LFM2.5"),
    "cohere2": ("<|END_OF_TURN_TOKEN|>", "Command R7B"),
    "deepseek_r1_distill": (DEEPSEEK, "DeepSeek-R1 distilled"),
    "deepseekv3": (DEEPSEEK, "DeepSeek-V3"),
    "glm4moe": ("<|user|>", "GLM-4.5"),
    "gptoss": ("<|return|>", "GPT-OSS"),
    "nemotron_3_nano": (IM, "Nemotron 3 Nano"),
    "nemotron_3_super": (IM, "Nemotron 3 Super"),
}
# Written into an answer by the template itself, so part of what is sampled.
THINKS = {
    "<think>": "<think>\nwexq{odd}\n</think>\n\n",
    "<|channel>thought": "<|channel>thought\nwexq{odd}\n<channel|>",
}
THINKS["<|channel|>analysis<|message|>"] = (
    "<|channel|>analysis<|message|>wexq{odd}<|end|><|start|>assistant<|channel|>final<|message|>"
)
# Their templates do not write the thought of an answer.
DROPS_THOUGHTS = ("gemma4", "deepseek_r1_distill", "deepseekv3")
PAGE = Path(__file__).parents[2] / "docs" / "families.md"
START, END = "<!-- the table that a test writes -->\n", "<!-- end of the table -->\n"


def form_of(name, thoughts="auto", **variables):
    end, _ = FAMILIES[name]
    tokenizer = tokenizer_of((FOLDER / f"{name}.jinja").read_text(), end)
    tokenizer.init_kwargs |= {"thoughts": thoughts, "chat_template_kwargs": variables}
    return ChatFormat(tokenizer)


@pytest.fixture(scope="module")
def formats():
    return {name: form_of(name) for name in FAMILIES}


@pytest.fixture(scope="module")
def dropping():
    return {name: form_of(name, "drop") for name in FAMILIES}


def thought_of(form, odd=""):
    """What a model of this family writes in front of an answer; "" if it does not think."""
    template = form.tokenizer.chat_template
    return next((text for mark, text in THINKS.items() if mark in template), "").format(odd=odd)


def sampled(form, messages, text):
    """What `answer` makes of a text that ends as the template ends an answer."""
    ids = (*form.tokenizer.encode(text, add_special_tokens=False), form.end_of_turn)
    keep, ended = form.cut(ids, bool(messages[0].tools))
    assert (keep, ended) == (len(ids), True)
    return form.answer(messages, ids)


def check_steps(form, messages):
    """Each answer is trained after exactly the prompt that it was sampled after, with its own
    tokens, and nothing else is."""
    answers = [n for n, message in enumerate(messages) if message.role == "assistant"]
    rows = form.steps(messages)
    assert len(rows) == (1 if form.keeps else len(answers))
    for place, number in enumerate(answers):
        prompt, own = form.encode(messages[:number], True).ids, messages[number].token_ids
        row = rows[0 if form.keeps else place]
        assert row.ids[: len(prompt)] == prompt
        assert tuple(row.ids[len(prompt) : len(prompt) + len(own)]) == own
        assert all(row.mask[len(prompt) : len(prompt) + len(own)])
    trained = sum(len(messages[number].token_ids) for number in answers)
    assert sum(sum(row.mask) for row in rows) == trained


def played(form, texts, opening=None):
    messages = [opening or Message("user", "question 0")]
    for number, text in enumerate(texts, 1):
        messages += [sampled(form, messages, text), Message("user", f"question {number}")]
    return messages


@pytest.mark.parametrize("rule", ["auto", "drop"])
@pytest.mark.parametrize("name", FAMILIES)
def test_each_step_is_trained_after_the_tokens_it_was_sampled_after(formats, dropping, name, rule):
    form = (formats if rule == "auto" else dropping)[name]
    assert rule == "auto" or not form.keeps
    thought = thought_of(form)
    for texts in (["yes", "no  ", "x"], ["", " ", "\n"], [f"{thought}yes", "plain", f"{thought}"]):
        messages = played(form, texts)
        check_steps(form, messages[:-1])
        shown = form.tokenizer.decode(form.encode(messages, True).ids)
        assert [shown.count(f"question {number}") for number in range(4)] == [1, 1, 1, 1]
        # An earlier thought stands in the history, or does not.
        assert shown.count("wexq") == (sum("wexq" in text for text in texts) if form.keeps else 0)


@pytest.mark.parametrize("name", FAMILIES)
def test_thoughts_are_told_apart(formats, name):
    form, question = formats[name], [Message("user", "q")]
    begun = form.tokenizer.decode(form.encode(question, True).ids).rstrip().endswith("<think>")
    thought = thought_of(form, " wexq")
    thought = thought.removeprefix("<think>\n") if begun else thought
    if not thought:
        message = sampled(form, question, "wexq")
        assert (message.thought, message.content, form.thought(message)) == ("", "wexq", (0, False))
        return
    message = sampled(form, question, f"{thought}yes")
    assert (message.thought, message.content) == ("wexq wexq", "yes")
    tokens, inside = form.thought(message)
    assert not inside
    before = form.tokenizer.decode(message.token_ids[:tokens])
    assert "wexq wexq" in before
    assert "yes" not in before
    unfinished = thought[: thought.index("wexq wexq") + 9]
    message = sampled(form, question, unfinished)
    assert (message.thought, message.content) == ("wexq wexq", "")
    assert form.thought(message) == (len(message.token_ids), True)


def works_with_tools(form):
    try:
        form.encode([asks()], True)
    except UsageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("rule", ["auto", "drop"])
@pytest.mark.parametrize("name", FAMILIES)
def test_calls_are_read_as_the_template_writes_them(formats, dropping, name, rule):
    """And each step with calls is trained after the tokens that it was sampled after."""
    form = (formats if rule == "auto" else dropping)[name]
    if works_with_tools(form):
        with pytest.raises(UsageError, match=r"no tool calls|does not show tools"):
            form.encode([asks()], True)
        return
    messages = [asks()]
    for query in ("SELECT 'a', \"b\"", "x\ny > 1"):
        made = calls(("run_sql", {"query": query, "limit": 3}))
        made = replace(made, thought="why" if thought_of(form) else "")
        prompt, whole = form.encode(messages, True).ids, form.encode([*messages, made], False)
        assert whole.ids[: len(prompt)] == prompt
        written = [whole.ids[n] for n in range(len(prompt), len(whole.ids)) if whole.mask[n]]
        action = form.answer(messages, tuple(written))
        assert [(c.name, c.values()) for c in action.tool_calls] == [
            ("run_sql", {"query": query, "limit": 3})
        ]
        messages += [action, result(action, f"rows {query}")]
    check_steps(form, messages[:-1])
    assert form.tokenizer.decode(form.encode(messages, True).ids).count("rows") >= 2


@pytest.mark.parametrize("name", FAMILIES)
def test_an_experts_answer_is_what_the_template_writes_last(formats, name):
    """Where the generation prompt begins an answer. An answer that has ended stays as it was."""
    form = formats[name]
    thought = "why" if thought_of(form) else ""
    chat = [
        Message("user", "one"),
        Message("assistant", "first", Source.EXPERT, thought=thought),
        Message("user", "two"),
        Message("assistant", "second", Source.EXPERT, thought=thought),
    ]
    if name in DROPS_THOUGHTS:
        with pytest.raises(UsageError, match="drops thoughts"):
            form.steps(chat)
        return
    rows = form.steps(chat)
    for row, number in zip(reversed(rows), (3, 1), strict=False):
        prompt = form.encode(chat[:number], True).ids
        assert row.ids[: len(prompt)] == prompt
        trained = form.tokenizer.decode(row.ids[len(prompt) :])
        assert chat[number].content in trained
        assert ("why" in trained) == bool(thought)
        assert form.end_of_turn in row.ids[len(prompt) :]


def test_a_rule_that_a_template_cannot_follow_is_refused_in_one_sentence():
    with pytest.raises(UsageError, match=r"prefix-preserving.*model\.chat_template"):
        form_of("phi3", "keep")


def test_variables_of_the_template_are_in_every_prompt():
    question = [Message("user", "q")]
    for name in ("qwen3", "nemotron_3_nano"):
        plain, quiet = form_of(name), form_of(name, enable_thinking=False)
        ids = quiet.encode(question, True).ids
        assert ids != plain.encode(question, True).ids
        written = quiet.tokenizer.apply_chat_template(
            [m.chat() for m in question],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        assert quiet.tokenizer.decode(ids) == written
    with pytest.raises(UsageError, match="no variable 'enable_thinkin'"):
        form_of("qwen3", enable_thinkin=False)


def test_tokens_around_thoughts_do_not_end_an_answer(formats):
    form = formats["qwen3"]
    ids = form.tokenizer.encode("<think>\nwexq\n</think>\n\nyes", add_special_tokens=False)
    assert form.cut(ids) == (len(ids), False)
    assert form.cut([*ids, form.end_of_turn, *ids]) == (len(ids) + 1, True)


def row_of(name, form):
    refused = works_with_tools(form)
    shown = "no tools" if "does not show" in refused else "no calls" if refused else "yes"
    history = "kept" if form.keeps else "anew"
    return f"| {FAMILIES[name][1]} | {history} | {'yes' if thought_of(form) else ''} | {shown} |\n"


def test_the_table_of_the_docs(formats):
    smollm2 = tokenizer_of(SMOLLM2_TEMPLATE + "{# <|im_start|> #}", IM)
    head = "| models | history | thinks | tools |\n|---|---|---|---|\n"
    rows = [row_of(name, form) for name, form in formats.items()]
    own = f"| SmolLM2 | {'kept' if ChatFormat(smollm2).keeps else 'anew'} |  | no calls |\n"
    table = START + head + "".join([*rows, own]) + END
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(START)
    written = before + table + rest.partition(END)[2]
    if os.environ.get("RRO_WRITE_DOCS"):
        PAGE.write_text(written, encoding="utf-8")
    assert written == page or os.environ.get("RRO_WRITE_DOCS")


def test_replacing_a_thought_changes_no_other_token(dropping):
    """Histories without thoughts do not depend on what was thought."""
    form = dropping["qwen3"]
    messages = played(form, [f"{thought_of(form)}yes"])
    other = [messages[0], replace(messages[1], thought="else"), messages[2]]
    assert form.encode(messages, True) == form.encode(other, True)


# They begin a thought in the prompt, so an answer without one is refused in a sentence.
BEGIN_THOUGHTS = ("qwen3_5_think", "qwen3_6", "qwen3_8", "deepseek_r1_distill", "deepseekv3")
BEGIN_THOUGHTS += ("nemotron_3_nano", "nemotron_3_super")


@pytest.mark.parametrize("rule", ["auto", "drop"])
@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in BEGIN_THOUGHTS])
def test_an_answer_that_says_nothing_is_trained_after_its_prompt(formats, dropping, name, rule):
    form = (formats if rule == "auto" else dropping)[name]
    silent = [Message("assistant", text, Source.EXPERT) for text in ("", " \n")]
    if not works_with_tools(form):
        silent += [calls(("run_sql", {})), calls(("run_sql", {"limit": 3}))]
    for answer in silent:
        question = asks() if answer.tool_calls else Message("user", "q")
        prompt, row = form.encode([question], True).ids, form.encode([question, answer], False)
        assert row.ids[: len(prompt)] == prompt
        assert any(row.mask)
        assert form.end_of_turn in row.ids[len(prompt) :] or answer.tool_calls


@pytest.mark.parametrize("name", DROPS_THOUGHTS)
def test_a_served_thought_that_the_template_cannot_write_is_left_out(dropping, name):
    form, question = dropping[name], Message("user", "q")
    served = Message("assistant", "yes", Source.POLICY, thought="hm")
    plain = form.encode([question, replace(served, thought="")], False)
    assert form.encode([question, served], False) == plain
    with pytest.raises(UsageError, match="drops thoughts"):
        form.encode([question, replace(served, source=Source.EXPERT)], False)


def test_a_variable_that_the_template_does_not_take_is_refused():
    for name in ("enable_thinkin", "message", "role", "tool_call", "messages", "loop", "range"):
        with pytest.raises(UsageError, match=f"has no variable '{name}' to set: it has .*enable_"):
            form_of("qwen3", **{name: False})
