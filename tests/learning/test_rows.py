"""Rows: what carries loss, what is left out, and in which order they are trained on."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from train_toys import answer, build_toy, toy_config, toy_conversation, toy_pair
from transformers import AutoTokenizer

from rro.errors import DataError, UsageError
from rro.learning.rows import (
    IGNORED,
    POOL,
    LengthOrder,
    PreferenceCollator,
    preference_rows,
    sft_rows,
)
from rro.models.chat import ChatFormat
from rro.types import Message, Source

# A length limit that nothing reaches.
EVERYTHING = 10_000


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    folder = build_toy(toy_config(), tmp_path_factory.mktemp("toy"))
    return ChatFormat(AutoTokenizer.from_pretrained(folder))


def test_sft_labels_are_the_assistants_tokens(chat):
    conversation = toy_conversation(3)
    row = sft_rows(chat, [conversation], EVERYTHING).dataset[0]
    trained = [label for label in row["labels"] if label != IGNORED]
    expected = [message.content for message in conversation if message.role == "assistant"]
    assert chat.tokenizer.decode(trained) == "".join(
        text + chat.tokenizer.eos_token for text in expected
    )
    assert row["input_ids"] == chat.encode(conversation, False).ids


def test_an_assistant_message_of_the_environment_carries_no_loss(chat):
    opening = (
        Message("user", "here are the rules"),
        Message("assistant", "OK", Source.ENVIRONMENT),
    )
    row = sft_rows(chat, [[*opening, *toy_conversation(0)]], EVERYTHING).dataset[0]
    trained = chat.tokenizer.decode([label for label in row["labels"] if label != IGNORED])
    assert "OK" not in trained
    assert trained.startswith("thought")


def test_sampled_tokens_are_kept_as_sampled(chat):
    """The tokenizer would not split the text letter by letter; the sampled tokens must stay."""
    letters = tuple(chat.tokenizer.convert_tokens_to_ids(letter) for letter in "thought")
    sampled = Message("assistant", "thought", Source.POLICY, (*letters, chat.end_of_turn))
    question = Message("user", "think")
    assert chat.encode([question, replace(sampled, token_ids=None)], False).mask.count(True) < len(
        sampled.token_ids
    )
    row = sft_rows(chat, [[question, sampled]], EVERYTHING).dataset[0]
    assert tuple(label for label in row["labels"] if label != IGNORED) == sampled.token_ids

    pair = replace(toy_pair(0), prompt=(question,), chosen=(sampled,), rejected=(answer("no"),))
    row = preference_rows(chat, [pair], EVERYTHING).dataset[0]
    assert tuple(row["chosen_ids"]) == sampled.token_ids
    assert row["chosen_mask"] == [1] * len(sampled.token_ids)


@pytest.mark.parametrize("kind", ["message", "trajectory"])
def test_a_pair_is_its_prompt_and_two_continuations(chat, kind):
    pair = toy_pair(5, kind)
    row = preference_rows(chat, [pair], EVERYTHING).dataset[0]
    assert row["prompt_ids"] == chat.encode(pair.prompt, True).ids
    for side, messages in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        assert (
            row["prompt_ids"] + row[f"{side}_ids"]
            == chat.encode([*pair.prompt, *messages], False).ids
        )


def test_a_token_of_another_model_is_refused(chat):
    answer = Message("assistant", "red", Source.POLICY, (10**6,))
    with pytest.raises(UsageError, match="token id 1000000"):
        sft_rows(chat, [[Message("user", "which?"), answer]], 100)


def test_collator_masks_observations(chat):
    """TRL's own collator would count every token after the prompt."""
    data = preference_rows(chat, [toy_pair(n) for n in range(4)], EVERYTHING)
    batch = PreferenceCollator(pad_token_id=0, pad_to_multiple_of=16)(list(data.dataset))
    assert batch["input_ids"].shape[1] % 16 == 0
    for n in range(4):
        for row, messages in ((n, toy_pair(n).chosen), (4 + n, toy_pair(n).rejected)):
            tokens = batch["input_ids"][row][batch["completion_mask"][row].bool()]
            expected = [message.content for message in messages if message.role == "assistant"]
            assert chat.tokenizer.decode(tokens) == "".join(
                text + chat.tokenizer.eos_token for text in expected
            )


def test_long_and_lossless_rows_are_left_out_and_counted(chat):
    short, long = toy_conversation(0), (*toy_conversation(0)[:1], answer("word " * 80))
    silent = toy_conversation(1)[:1]
    data = sft_rows(chat, [short, long, silent], max_length=60)
    assert (data.counts.used, data.counts.too_long, data.counts.without_loss) == (1, 1, 1)
    assert data.counts.tokens == len(chat.encode(short, False).ids)
    assert data.counts.loss_tokens == sum(chat.encode(short, False).mask)
    pairs = [toy_pair(0), replace(toy_pair(0), rejected=(answer("word " * 80),))]
    counts = preference_rows(chat, pairs, max_length=80).counts
    assert (counts.used, counts.too_long, counts.without_loss) == (1, 1, 0)


def test_no_row_left_is_an_error_that_says_why(chat):
    with pytest.raises(DataError, match=r"1 given, 1 longer than 5 tokens \(raise max_length\)"):
        sft_rows(chat, [toy_conversation(0)], max_length=5)
    with pytest.raises(DataError, match="no pairs to train on: 0 given"):
        preference_rows(chat, [], EVERYTHING)


def test_other_rows_have_another_digest(chat):
    one, same, other = (sft_rows(chat, [toy_conversation(n)], EVERYTHING).digest for n in (1, 1, 2))
    assert one == same != other


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=80),
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 3),
)
def test_order_is_a_permutation_that_depends_on_seed_and_epoch_alone(
    lengths, batch_size, seed, epoch
):
    first, second = (LengthOrder(lengths, batch_size, seed) for _ in range(2))
    # Iterating has no side effect.
    list(first)
    first.set_epoch(epoch)
    second.set_epoch(epoch)
    assert list(first) == list(second)
    assert sorted(first) == list(range(len(lengths)))


def test_order_changes_with_the_epoch_and_groups_similar_lengths():
    lengths = [(7 * i) % 101 for i in range(POOL * 8 * 3)]
    order = LengthOrder(lengths, batch_size=8, seed=1)
    epochs = []
    for epoch in range(3):
        order.set_epoch(epoch)
        epochs.append(list(order))
    assert epochs[0] != epochs[1] != epochs[2]
    for rows in epochs:
        steps = [rows[i : i + 8] for i in range(0, len(rows), 8)]
        padding = sum(
            max(lengths[r] for r in step) * 8 - sum(lengths[r] for r in step) for step in steps
        )
        # Unsorted steps of 8 have 0.8.
        assert padding < 0.2 * sum(lengths)


def test_incomplete_step_comes_last():
    order = LengthOrder(range(11), batch_size=4, seed=0)
    for epoch in range(5):
        order.set_epoch(epoch)
        rows = list(order)
        # Steps hold neighbouring lengths: no border was shifted.
        for step in (rows[0:4], rows[4:8]):
            assert max(step) - min(step) == 3
