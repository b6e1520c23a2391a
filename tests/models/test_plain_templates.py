"""rro's own templates are filled in without rendering them: the same token ids as by rendering."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tool_toys import asks, calls, result, tokenizer_of

from rro.models.chat import ChatFormat
from rro.models.templates import SMOLLM2_TEMPLATE, TINY_TEMPLATE
from rro.types import Message, Source

CONTROL = "{# <|user|> <|system|> <|assistant|> <|im_start|> #}"


def pair_of(template, end):
    """The format of a template that is filled in, and of the same one that is rendered."""
    formats = []
    for text in (template, template + "{# rendered #}"):
        tokenizer = tokenizer_of(template + CONTROL, end)
        tokenizer.chat_template = text
        formats.append(ChatFormat(tokenizer))
    return formats


PAIRS = {
    "tiny": pair_of(TINY_TEMPLATE, "<|end|>"),
    "smollm2": pair_of(SMOLLM2_TEMPLATE, "<|im_end|>"),
}
texts = st.text(st.sampled_from("ab \n\"\\<|>é'{}"), max_size=9)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(PAIRS)), st.lists(texts, min_size=1, max_size=7), st.booleans())
def test_ids_are_those_of_rendering(name, said, sampled):
    filled, rendered = PAIRS[name]
    messages = [Message("system", "Rules.")]
    for number, text in enumerate([*said, "<|im_end|><|end|>"]):
        ids = filled.tokenizer.encode(text, add_special_tokens=False)
        message = Message("assistant" if number % 2 else "user", text, Source.POLICY)
        tokens = (*ids, filled.end_of_turn) if sampled and number % 2 else None
        messages.append(replace(message, token_ids=tokens))
        for prompt in (False, True):
            assert filled.encode(messages, prompt) == rendered.encode(messages, prompt)


@settings(max_examples=30, deadline=None)
@given(texts, texts)
def test_so_are_those_of_calls(query, shown):
    filled, rendered = PAIRS["tiny"]
    call = calls(("run_sql", {"query": query, "limit": 2, query: [query]}), text=shown)
    messages = [asks(), call, result(call, shown)]
    for end in (1, 2, 3):
        assert filled.encode(messages[:end], end != 2) == rendered.encode(messages[:end], end != 2)


@pytest.mark.parametrize("name", PAIRS)
def test_they_are_not_rendered(name, monkeypatch):
    filled, _ = PAIRS[name]
    messages = [Message("user", "one"), Message("assistant", "two"), Message("user", "three")]
    first = filled.encode(messages, True)
    other = [replace(message, content=f"other {message.content}") for message in messages]
    monkeypatch.setattr(filled.tokenizer, "apply_chat_template", None)
    assert filled.encode(other, True) != first
