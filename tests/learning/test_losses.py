"""What the trainers compute, compared with the same computed by hand: which tokens count, the
losses, and what they do not depend on."""

import math

import pytest
import torch
from train_toys import (
    build_toy,
    toy_config,
    toy_context,
    toy_conversation,
    toy_pair,
    train_dpo,
    train_sft,
)
from trl.kernels import ChunkedLogProbFunction

from rro.learning.dpo_trainer import dpo_arguments, dpo_trainer, with_reference
from rro.learning.rows import IGNORED, preference_rows, sft_rows
from rro.learning.setup import (
    load_for_training,
    longest_row,
    uses_bf16,
)
from rro.learning.sft_trainer import sft_trainer
from rro.models.chat import ChatFormat

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
CONVERSATIONS = [toy_conversation(n) for n in range(13)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two untrained models with one tokenizer: a policy, and a reference that differs from it."""
    folder = tmp_path_factory.mktemp("toys")
    return tuple(build_toy(toy_config(), folder / str(seed), seed) for seed in (0, 1))


def answers(tokenizer, messages):
    return "".join(
        message.content + tokenizer.eos_token for message in messages if message.role == "assistant"
    )


def log_probability(model, chat, prompt, completion):
    """The log-probability of the assistant's tokens after the prompt, summed, and how many there
    are. One sequence, no mask, no padding."""
    whole, start = chat.encode([*prompt, *completion], False), len(chat.encode(prompt, True).ids)
    ids, mask = torch.tensor(whole.ids), torch.tensor(whole.mask)
    mask[:start] = False
    with torch.no_grad():
        scores = torch.log_softmax(model.eval()(ids[None]).logits[0, :-1].double(), dim=-1)
    chosen = scores.gather(1, ids[1:, None])[:, 0][mask[1:]]
    return float(chosen.sum()), len(chosen)


def first_record(train):
    """The metrics of the first optimiser step, whose loss is that of the untrained model."""
    records = []
    train(records.append)
    return records[0]


def test_sft_trainer_feeds_the_assistants_tokens(models, tmp_path):
    """Looks at the batches of the trainer's own loader."""
    config = toy_config()
    model, tokenizer = load_for_training(config.model, models[0])
    data = sft_rows(ChatFormat(tokenizer), CONVERSATIONS, 256)
    trainer = sft_trainer(config.sft, toy_context(config), data, model, tokenizer, tmp_path)
    seen = []
    for batch in trainer.get_train_dataloader():
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            assert torch.equal(ids[labels != IGNORED], labels[labels != IGNORED])
            seen.append(tokenizer.decode(labels[labels != IGNORED]))
    assert sorted(seen) == sorted(
        answers(tokenizer, conversation) for conversation in CONVERSATIONS
    )


@pytest.mark.parametrize("kind", ["message", "trajectory"])
def test_dpo_trainer_feeds_the_assistants_tokens(models, tmp_path, kind):
    """Single messages: that message. Whole trajectories: every answer, no observation."""
    config = toy_config()
    model, tokenizer = load_for_training(config.model, models[0])
    pairs = [toy_pair(n, kind) for n in range(8)]
    data = preference_rows(ChatFormat(tokenizer), pairs, 256)
    args = dpo_arguments(config.dpo, toy_context(config), data, model, tmp_path)
    data = with_reference(data, model, tokenizer, args)
    trainer = dpo_trainer(config.dpo, toy_context(config), data, model, tokenizer, args)
    seen = []
    for batch in trainer.get_train_dataloader():
        mask = batch["completion_mask"].bool()
        texts = [
            tokenizer.decode(ids[row]) for ids, row in zip(batch["input_ids"], mask, strict=True)
        ]
        seen.extend(zip(texts[: len(texts) // 2], texts[len(texts) // 2 :], strict=True))
    expected = [
        (answers(tokenizer, pair.chosen), answers(tokenizer, pair.rejected)) for pair in pairs
    ]
    assert sorted(seen) == sorted(expected)


def test_sft_loss_is_the_mean_over_all_assistant_tokens(models, tmp_path):
    config = toy_config(sft={"batch_size": 13, "micro_batch": 1, "epochs": 1})
    record = first_record(
        lambda observe: train_sft(config, CONVERSATIONS, models[0], tmp_path / "out", observe)
    )
    model, tokenizer = load_for_training(config.model, models[0])
    chat = ChatFormat(tokenizer)
    sums = [
        log_probability(model, chat, conversation[:1], conversation[1:])
        for conversation in CONVERSATIONS
    ]
    by_hand = -sum(total for total, _ in sums) / sum(count for _, count in sums)
    assert record["loss"] == pytest.approx(by_hand, abs=1e-5)


@pytest.mark.parametrize("kind", ["message", "trajectory"])
@pytest.mark.parametrize(("sft_weight", "sft_loss"), [(0.0, "mean"), (0.7, "mean"), (1.0, "sum")])
def test_dpo_loss_by_hand(models, tmp_path, kind, sft_weight, sft_loss):
    """Against a reference that is another model; 5 pairs in micro-batches of 2, 2 and 1; IPR's
    mixed loss too, whose SFT term is the sum over the tokens of each chosen side."""
    sft = {"sft_weight": sft_weight, "sft_loss": sft_loss}
    config = toy_config(dpo={"batch_size": 6, "micro_batch": 2, "epochs": 1, "beta": 0.3, **sft})
    pairs = [toy_pair(n, kind) for n in range(5)]
    record = first_record(
        lambda observe: train_dpo(config, pairs, models[0], models[1], tmp_path / "out", observe)
    )

    policy, tokenizer = load_for_training(config.model, models[0])
    reference, _ = load_for_training(config.model, models[1])
    chat, losses, margins, chosen_sum, chosen_count = ChatFormat(tokenizer), [], [], 0.0, 0
    for pair in pairs:
        chosen, tokens = log_probability(policy, chat, pair.prompt, pair.chosen)
        rejected, _ = log_probability(policy, chat, pair.prompt, pair.rejected)
        margin = chosen - log_probability(reference, chat, pair.prompt, pair.chosen)[0]
        margin -= rejected - log_probability(reference, chat, pair.prompt, pair.rejected)[0]
        margins.append(0.3 * margin)
        losses.append(math.log1p(math.exp(-0.3 * margin)))
        chosen_sum, chosen_count = chosen_sum + chosen, chosen_count + tokens
    # Policy and reference do differ.
    assert max(map(abs, margins)) > 0.1
    by_hand = sum(losses) / 5
    by_hand -= sft_weight * chosen_sum / (5 if sft_loss == "sum" else chosen_count)
    assert record["loss"] == pytest.approx(by_hand, abs=1e-5)


@pytest.mark.parametrize(("reference", "other"), [("sft", True), ("previous", False)])
def test_the_reference_is_the_sft_policy_or_the_one_before_the_round(
    models, tmp_path, reference, other
):
    """Against itself, every pair's loss is log 2 at first."""
    config = toy_config(dpo={"batch_size": 6, "epochs": 1, "beta": 0.3, "reference": reference})
    pairs = [toy_pair(n) for n in range(5)]
    record = first_record(
        lambda observe: train_dpo(config, pairs, models[0], models[1], tmp_path / "out", observe)
    )
    assert (abs(record["loss"] - math.log(2)) > 1e-3) == other


def weights(folder):
    model, _ = load_for_training(toy_config().model, folder)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(("stage", "sft_loss"), [("sft", "mean"), ("dpo", "mean"), ("dpo", "sum")])
def test_micro_batches_do_not_change_the_training(models, tmp_path, stage, sft_loss):
    """8 x 1 equals 1 x 8 and 4 x 2, in losses and weights; the last batch of an epoch is
    incomplete."""
    results = []
    for micro in (8, 1, 4):
        config = toy_config(
            sft={"micro_batch": micro},
            dpo={"micro_batch": micro, "sft_weight": 0.5, "sft_loss": sft_loss},
        )
        records, output = [], tmp_path / f"{micro}"
        if stage == "sft":
            train_sft(config, CONVERSATIONS, models[0], output, records.append)
        else:
            train_dpo(
                config,
                [toy_pair(n) for n in range(13)],
                models[0],
                models[1],
                output,
                records.append,
            )
        results.append(([record["loss"] for record in records], weights(output)))
    (losses, trained), *others = results
    assert len(losses) == 8
    assert (trained - weights(models[0])).abs().max() > 1e-3
    for other_losses, other in others:
        assert other_losses == pytest.approx(losses, abs=1e-4)
        torch.testing.assert_close(other, trained, atol=1e-4, rtol=1e-3)


def test_vocabulary_is_scored_only_where_there_is_loss(models, tmp_path, monkeypatch):
    """Counts the positions that reach the kernel of TRL's fused head."""
    scored, original = [], ChunkedLogProbFunction.forward

    def counting(ctx, hidden, *rest):
        scored.append(len(hidden))
        return original(ctx, hidden, *rest)

    monkeypatch.setattr(ChunkedLogProbFunction, "forward", staticmethod(counting))
    report = train_sft(toy_config(sft={"epochs": 1}), CONVERSATIONS, models[0], tmp_path / "out")
    assert sum(scored) == report.rows.loss_tokens < report.rows.tokens / 2


def test_bf16_where_it_pays():
    cpu = torch.device("cpu")
    assert not uses_bf16("auto", cpu, parameters=2_000_000)
    assert uses_bf16("bfloat16", cpu, parameters=2_000_000)
    assert not uses_bf16("float32", torch.device("cuda"), parameters=10**9)


def test_rows_are_bounded_by_the_models_context(models):
    model, _ = load_for_training(toy_config().model, models[0])
    assert longest_row(toy_config().sft, model) == 256
    assert longest_row(toy_config(sft={"max_length": 100}).sft, model) == 100
