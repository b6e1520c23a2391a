"""Rows of training where histories hold no thoughts: each answer after the prompt that it was
sampled after, for every learner."""

from dataclasses import replace

import numpy as np
import pytest
from tool_toys import FOLDER, tokenizer_of

from rro.errors import DataError
from rro.learning.rows import IGNORED, preference_rows, sft_rows
from rro.learning.successes import Success
from rro.learning.weighted_rows import success_rows, weighted_rows
from rro.models.chat import ChatFormat
from rro.types import Message, PreferencePair, ProcessReward, WeightedEpisode

THOUGHT = "<think>\nbecause{}\n</think>\n\n"


@pytest.fixture(scope="module")
def chat():
    tokenizer = tokenizer_of((FOLDER / "qwen3.jinja").read_text(), "<|im_end|>")
    tokenizer.init_kwargs["thoughts"] = "drop"
    return ChatFormat(tokenizer)


@pytest.fixture(scope="module")
def episode(chat):
    messages = [Message("user", "start")]
    for number in range(3):
        text = THOUGHT.format(number) + f"act {number}"
        ids = (*chat.tokenizer.encode(text, add_special_tokens=False), chat.end_of_turn)
        messages += [chat.answer(messages, ids), Message("user", f"saw {number}")]
    return tuple(messages[:-1])


def contexts(chat, episode):
    """The prompt of each answer and its sampled tokens."""
    numbers = range(1, len(episode), 2)
    return [(chat.encode(episode[:n], True).ids, list(episode[n].token_ids)) for n in numbers]


def test_an_episode_is_a_row_for_each_answer(chat, episode):
    rows = sft_rows(chat, [episode], 4096)
    assert rows.counts.used == 3
    for row, (prompt, own) in zip(rows.dataset, contexts(chat, episode), strict=True):
        assert row["input_ids"][: len(prompt) + len(own)] == prompt + own
        assert [token for token in row["labels"] if token != IGNORED] == own
        assert chat.tokenizer.decode(prompt).count("because") == 0
    successes = success_rows(chat, [Success("t", episode)], 4096)
    assert [list(row.ids) for row in successes] == [row["input_ids"] for row in rows.dataset]


def test_a_policy_gradient_has_the_same_rows_with_their_advantages(chat, episode):
    logprobs = tuple(m.token_ids and (-0.5,) * len(m.token_ids) for m in episode)
    weighted = WeightedEpisode(
        "t", episode, (None, 1.0, None, -2.0, None, 0.0), 1.0, True, logprobs
    )
    rows = weighted_rows(chat, [weighted], 4096, sampled=True).rows
    assert len(rows) == 2  # the third teaches nothing
    given = zip(rows, contexts(chat, episode), (1.0, -2.0), strict=False)
    for row, (prompt, own), advantage in given:
        assert list(row.ids[: len(prompt) + len(own)]) == prompt + own
        assert list(row.ids[row.targets]) == own
        assert np.all(row.positive + row.negative == advantage)
        assert np.all(row.old == -0.5)


def test_a_pair_of_steps_has_its_prompt_and_one_of_episodes_is_refused(chat, episode):
    reward = ProcessReward((1.0,), "p")
    step = PreferencePair(episode[:3], episode[3:4], episode[5:6], "t", 2, reward, reward, "rro")
    [row] = preference_rows(chat, [step], 4096).dataset
    prompt, own = contexts(chat, episode)[1]
    assert (row["prompt_ids"], row["chosen_ids"][: len(own)]) == (prompt, own)
    whole = replace(step, chosen=episode[3:], kind="continuation")
    with pytest.raises(DataError, match=r"model\.thoughts"):
        preference_rows(chat, [whole], 4096)
