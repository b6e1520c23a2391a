"""Trajectories, token by token: where the template writes earlier answers anew, too."""

import pytest
from tool_toys import FOLDER, tokenizer_of

from rro.learning.line_rows import Advantages, trajectory_rows
from rro.learning.lines_of_play import Line
from rro.models.chat import ChatFormat
from rro.types import Message, StopReason, Usage

RUN = {"strategy": "group", "iteration": 1, "success_reward": 1.0}
SAID = ["<think>\nhm\n</think>\n\nopen", "<think>\nso\n</think>\n\ntake", "go"]


def chat_of(thoughts):
    tokenizer = tokenizer_of((FOLDER / "qwen3.jinja").read_text(), "<|im_end|>")
    tokenizer.init_kwargs["thoughts"] = thoughts
    return ChatFormat(tokenizer)


def line_of(chat):
    messages = [Message("user", "begin")]
    for number, text in enumerate(SAID):
        ids = (*chat.tokenizer.encode(text, add_special_tokens=False), chat.end_of_turn)
        messages += [chat.answer(messages, ids), Message("user", f"saw {number}")]
    del messages[-1]
    known = tuple(tuple([-0.5] * len(m.token_ids)) if m.token_ids else None for m in messages)
    return Line(
        "t", "episode", "0", 0, tuple(messages), 0, known, 1.0, StopReason.TERMINAL, "p",
        committed=True, rose=False, usage=Usage(),
    )  # fmt: skip


@pytest.mark.parametrize("thoughts", ["keep", "drop"])
def test_each_drawn_token_is_marked_in_exactly_one_row(thoughts):
    chat = chat_of(thoughts)
    line = line_of(chat)
    rows = list(trajectory_rows(line, RUN, Advantages([]), chat))
    answers = [number for number in range(len(line.messages)) if number % 2]
    assert [row["answer"] for row in rows] == ([None] if chat.keeps else answers)
    drawn = [
        id_ for row in rows for id_, of in zip(row["input_ids"], row["mask"], strict=True) if of
    ]
    assert drawn == [id_ for number in answers for id_ in line.messages[number].token_ids]
    for row in rows:
        assert len(row["message_advantages"]) == len(row["messages"])
        assert [p is not None for p in row["logprobs"]] == [bool(of) for of in row["mask"]]


def test_without_a_tokenizer_a_line_is_one_row():
    [row] = trajectory_rows(line_of(chat_of("drop")), RUN, Advantages([]), None)
    assert (row["input_ids"], row["answer"], len(row["messages"])) == (None, None, 6)
