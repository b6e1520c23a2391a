"""All weights of a process reward model, trained on labels that a rule gives."""

import math
import random
from functools import partial

import pytest
from transformers import LlamaConfig, LlamaForTokenClassification

from rro.config import ModelConfig, TinyConfig
from rro.errors import DataError, RroError
from rro.learning.reward_model import Action, Labels, text_of
from rro.learning.reward_model_trainer import FineTuning, rows_of, train_all_weights
from rro.models.loading import build_tiny
from rro.models.process_rewards import ProcessRewardModel
from rro.types import Message

WORDS = ("red", "blue")


def labels(tasks=16, seed=0):
    """Answers of two words to the same question; the value is 0.9 after "red", 0.2 after "blue"."""
    draw, actions = random.Random(seed), {}
    for task in range(tasks):
        history = (Message("user", f"door {task % 4}"),)
        for word in WORDS:
            messages = (*history, Message("assistant", f"{word} {task}"))
            share = 0.9 if word == "red" else 0.2
            seen = tuple(float(draw.random() < share) for _ in range(6))
            actions[text_of(messages)] = Action(messages, f"t{task}", seen, False)
    return Labels(actions, (), (0.0, 1.0))


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    sizes = TinyConfig(hidden_size=32, intermediate_size=64, layers=1, vocabulary=300, context=64)
    build_tiny(sizes, [" ".join(WORDS), "door"], 0, folder)

    return partial(ProcessRewardModel.on, ModelConfig(), folder)


def test_all_weights_learn_what_words_say(make):
    found = labels()
    tuning = FineTuning(epochs=8, learning_rate=1e-2, batch_size=8)
    model, scale, worth = train_all_weights(make, found, tuning)
    said = {word: list[float]() for word in WORDS}
    for action in found.actions.values():
        value = float(scale.value(model.scores([action.messages])[0][0]))
        said[action.messages[-1].text.split()[0]].append(value)
    assert min(said["red"]) > max(said["blue"])
    assert worth.error < worth.spread / 2
    assert isinstance(model.model, LlamaForTokenClassification)
    assert isinstance(model.model.config, LlamaConfig)


def test_scores_do_not_depend_on_what_else_is_scored(make):
    model = make()
    short = (Message("user", "which?"), Message("assistant", "red door"))
    longer = (*short, Message("user", "and now?"), Message("assistant", "blue"))
    together = model.scores([short, longer, short])
    alone = [model.scores([one])[0] for one in (short, longer, short)]
    assert [tokens for _, tokens in together] == [tokens for _, tokens in alone]
    assert [number for number, _ in together] == pytest.approx([number for number, _ in alone])
    inside = model.head(model.features(longer).clone())[:, 0].tolist()
    assert inside == pytest.approx([together[0][0], together[1][0]], abs=1e-5)


def test_rows_hold_each_action_once_at_its_last_token(make):
    found, model = labels(tasks=2), make()
    first = next(iter(found.actions.values()))
    longer = (*first.messages, Message("user", "and now?"), Message("assistant", "red"))
    actions = {**found.actions, text_of(longer): Action(longer, "t0", (1.0, 0.0), False)}
    rows = rows_of(model, actions, (0.0, 1.0))
    assert len(rows) == 4
    weights = [weight for row in rows for _, weight in row["labels"] if weight]
    assert sorted(weights) == [2.0, 6.0, 6.0, 6.0, 6.0]
    (row,) = (row for row in rows if sum(weight > 0 for _, weight in row["labels"]) == 2)
    ids, places = model.encode(longer)
    assert row["input_ids"] == list(ids)
    assert [n for n, (_, weight) in enumerate(row["labels"]) if weight] == places


def test_a_rate_that_is_too_high_is_one_sentence(make):
    with pytest.raises(RroError, match="lower --learning-rate"):
        train_all_weights(make, labels(), FineTuning(learning_rate=math.inf))


def test_few_tasks_are_refused(make):
    with pytest.raises(DataError, match="2 tasks: 4 are needed"):
        train_all_weights(make, labels(tasks=2), FineTuning())
