"""What the policy gradient computes, compared with TRL's GRPO and with the same computed by hand:
losses and gradients, and what they do not depend on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from train_toys import build_toy, toy_config, toy_context, toy_episode, toy_group, toy_options
from trl import GRPOConfig, GRPOTrainer

from rro.errors import DataError, UsageError
from rro.learning.policy_gradient import PolicyGradient
from rro.learning.policy_gradient_trainer import policy_gradient_trainer, policy_losses
from rro.learning.prefix_sharing import ATTENTION
from rro.learning.setup import load_for_training
from rro.learning.successes import Success
from rro.learning.trl_internals import adapted_trl
from rro.learning.weighted_rows import success_rows, weighted_rows
from rro.models.chat import ChatFormat

EPISODES = toy_group()
MODEL = toy_config().model


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two untrained models with one tokenizer: a policy, and a reference that differs from it."""
    folder = tmp_path_factory.mktemp("toys")
    return tuple(build_toy(toy_config(), folder / str(seed), seed) for seed in (0, 1))


def gradients(model):
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def assert_close(one, other, tolerance=1e-5):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=tolerance, rtol=tolerance)


def first_step(
    options, episodes, models, folder, *, dtype=torch.float32, successes=(), change=None,
    temperature=1.0,
):  # fmt: skip
    """The loss and the gradient of the first optimiser step, and the number of its passes.
    `change(plan)` may set the old log-probabilities of its rows."""
    model, tokenizer = load_for_training(MODEL, models[0])
    chat = ChatFormat(tokenizer)
    data = weighted_rows(
        chat,
        episodes,
        256,
        aggregation=options.aggregation,
        sampled=options.old_logprobs == "sampled",
        scale=options.scale == "batch",
    )
    replayed = success_rows(chat, successes, 256)
    with adapted_trl():
        trainer = policy_gradient_trainer(
            options, replace(toy_context(toy_config()), temperature=temperature), data, replayed,
            model.to(dtype), tokenizer, folder, *models,
        )  # fmt: skip
        plan = trainer.row_order
        if plan.shared:
            model.set_attn_implementation(ATTENTION)
        trainer.model.zero_grad()
        loss, batches = 0.0, list(trainer.get_train_dataloader())[: plan.passes]
        for batch in batches:
            part = trainer.compute_loss(trainer.model, batch)
            part.backward()
            loss += float(part.detach())
    return loss, gradients(trainer.model), len(batches)


def grpo(models, folder, episodes, kind, *, beta=0.0, old=None, temperature=1.0):
    """The loss and the gradient of TRL's trainer on the same episodes, whose completions are all
    that follows the opening; `old` are their tokens' log-probabilities when sampled."""
    model, tokenizer = load_for_training(MODEL, models[0])
    reference, _ = load_for_training(MODEL, models[1])
    chat = ChatFormat(tokenizer)
    args = GRPOConfig(
        output_dir=str(folder), loss_type=kind, beta=beta, use_cpu=True, bf16=False,
        gradient_checkpointing=False, report_to="none", num_generations=2,
        per_device_train_batch_size=2, temperature=temperature,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=args,
        train_dataset=Dataset.from_list([{"prompt": "x"}] * 2),
        processing_class=tokenizer,
    )
    trainer.current_gradient_accumulation_steps = 1
    inputs = grpo_inputs(chat, tokenizer, episodes, old)
    if beta:
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        with torch.no_grad():
            logits = reference.eval()(input_ids=ids, attention_mask=mask).logits[:, :-1]
        logps = (logits / temperature).log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        inputs["ref_per_token_logps"] = logps[:, -inputs["completion_ids"].shape[1] :]
    trainer.model.train()
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, inputs)
    loss.backward()
    return float(loss.detach()), gradients(trainer.model)


def grpo_inputs(chat, tokenizer, episodes, old):
    """Prompts padded on the left, completions on the right, and which of their tokens count."""
    prompts = [chat.encode(episode.messages[:1], True).ids for episode in episodes]
    wholes = [chat.encode(episode.messages, False) for episode in episodes]
    most = max(map(len, prompts))
    longest = max(len(w.ids) - len(p) for w, p in zip(wholes, prompts, strict=True))
    inputs = {
        name: torch.zeros(len(episodes), size, dtype=torch.long)
        for name, size in (
            ("prompt_ids", most), ("prompt_mask", most), ("completion_ids", longest),
            ("completion_mask", longest), ("tool_mask", longest),
        )
    }  # fmt: skip
    inputs["advantages"] = torch.tensor([float(episode.advantages[-1]) for episode in episodes])
    if old is not None:
        inputs["old_per_token_logps"] = torch.zeros(len(episodes), longest)
    for number, (prompt, whole) in enumerate(zip(prompts, wholes, strict=True)):
        inputs["prompt_ids"][number, most - len(prompt) :] = torch.tensor(prompt)
        inputs["prompt_mask"][number, most - len(prompt) :] = 1
        end = len(whole.ids) - len(prompt)
        inputs["completion_ids"][number, :end] = torch.tensor(whole.ids[len(prompt) :])
        inputs["completion_mask"][number, :end] = 1
        counts = torch.tensor(whole.mask[len(prompt) :])
        inputs["tool_mask"][number, :end] = counts
        if old is not None:
            inputs["old_per_token_logps"][number, :end][counts] = torch.tensor(old[number])
    inputs["num_items_in_batch"] = inputs["tool_mask"].sum()
    return inputs


def with_logprobs(models, episodes, noise=0.5):
    """The episodes with log-probabilities of their tokens as another policy may have sampled them,
    so that many ratios leave the clip range; and the same as one list for each episode."""
    model, tokenizer = load_for_training(MODEL, models[0])
    chat, draw, noted, lists = ChatFormat(tokenizer), np.random.default_rng(0), [], []
    for episode in episodes:
        whole = chat.encode(episode.messages, False)
        ids, mask = torch.tensor(whole.ids), torch.tensor(whole.mask)
        with torch.no_grad():
            logits = model.eval()(ids[None]).logits[0, :-1]
        logps = logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0][mask[1:]].numpy()
        logps = logps + draw.normal(0, noise, len(logps))
        lists.append([float(logp) for logp in logps])
        remaining, parts = list(lists[-1]), []
        for number, advantage in enumerate(episode.advantages):
            if advantage is None:
                parts.append(None)
                continue
            start = len(chat.encode(episode.messages[:number], True).ids)
            count = sum(chat.encode(episode.messages[: number + 1], False).mask[start:])
            parts.append(tuple(remaining[:count]))
            remaining = remaining[count:]
        noted.append(replace(episode, logprobs=tuple(parts)))
    return noted, lists


@pytest.mark.parametrize("kind", ["grpo", "dapo"])
@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize(
    ("off_policy", "temperature"), [(False, 1.0), (True, 1.0), (False, 0.6), (True, 0.6)]
)
def test_grpo_matches_trl(models, tmp_path, kind, beta, off_policy, temperature):
    """Same rows, same advantages: the same loss and gradient, on the policy's own samples and on
    those of another, where ratios are clipped on both sides."""
    episodes, old = with_logprobs(models, EPISODES) if off_policy else (EPISODES, None)
    options = toy_options(
        batch_size=16,
        epochs=1,
        kl=beta,
        aggregation="sequence" if kind == "grpo" else "token",
        old_logprobs="sampled" if off_policy else "recomputed",
    )
    loss, gradient, passes = first_step(
        options, episodes, models, tmp_path / "ours", temperature=temperature
    )
    expected, wanted = grpo(
        models, tmp_path / "trl", episodes, kind, beta=beta, old=old, temperature=temperature
    )
    assert passes > 1
    assert loss == pytest.approx(expected, abs=1e-5)
    assert_close(gradient, wanted)


def test_clipping_by_hand():
    """Ratios of 0.5, 1 and 2 with advantages of either sign; 0.8 and 1.3 are the limits."""
    options = toy_options(clip=0.2, clip_high=0.3)
    ratio = torch.tensor([0.5, 1.0, 2.0] * 2)
    positive, negative = torch.tensor([3.0] * 3 + [0.0] * 3), torch.tensor([0.0] * 3 + [-2.0] * 3)
    logps = ratio.log().requires_grad_()
    batch = {
        "weight": torch.ones(6),
        "old": torch.zeros(6),
        "positive": positive,
        "negative": negative,
    }
    losses = policy_losses(logps, batch, options)
    torch.testing.assert_close(losses, torch.tensor([-1.5, -3.0, -3.9, 1.6, 2.0, 4.0]))
    losses.sum().backward()
    assert (logps.grad != 0).tolist() == [True, True, False, False, True, True]


def test_advantages_divided_by_their_deviation(models):
    _, tokenizer = load_for_training(MODEL, models[0])
    chat = ChatFormat(tokenizer)
    plain = weighted_rows(chat, EPISODES, 256)
    scaled = weighted_rows(chat, EPISODES, 256, scale=True)
    values = np.concatenate([row.positive + row.negative for row in plain.rows])
    tokens = [
        (sum(chat.encode(episode.messages, False).mask), episode.advantages[-1])
        for episode in EPISODES
    ]
    counts, advantages = zip(*tokens, strict=True)
    deviation = np.repeat(advantages, counts).std()
    divided = np.concatenate([row.positive + row.negative for row in scaled.rows])
    np.testing.assert_allclose(divided, values / deviation)


@pytest.mark.parametrize("aggregation", ["token", "sequence"])
@pytest.mark.parametrize("shared", [False, True])
def test_one_by_one_equals_all_at_once(models, tmp_path, aggregation, shared):
    options = toy_options(batch_size=16, epochs=1, aggregation=aggregation, share_prefixes=shared)
    results = [
        first_step(
            options.model_copy(update={"micro_batch": size}), EPISODES, models, tmp_path / str(size)
        )
        for size in (1, 16)
    ]
    (loss, gradient, many), (other, same, single) = results
    assert (many > 8, single) == (True, 1)
    assert loss == pytest.approx(other, abs=1e-6)
    assert_close(gradient, same, 1e-6)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_sharing_prefixes_changes_no_gradient(models, tmp_path, checkpointing):
    """In double precision, but for the vocabulary head, which TRL computes in single precision."""
    episodes, _ = with_logprobs(models, EPISODES)
    options = toy_options(
        batch_size=16, epochs=1, kl=0.1, old_logprobs="sampled", micro_batch=16, imitate=0.5,
        gradient_checkpointing=checkpointing,
    )  # fmt: skip
    successes = [Success(episode.task, episode.messages) for episode in EPISODES if episode.success]
    assert successes
    plain, shared = (
        first_step(
            options.model_copy(update={"share_prefixes": share}), episodes, models,
            tmp_path / str(share), dtype=torch.float64, successes=successes,
        )
        for share in (False, True)
    )  # fmt: skip
    assert plain[0] == pytest.approx(shared[0], abs=1e-6)
    assert_close(plain[1], shared[1], 1e-6)


def test_merged_duplicates_equal_single_ones(models, tmp_path):
    """Two copies with advantages of different sign, and a third episode, some ratios clipped: the
    mean of what each gives alone."""
    first, other = toy_episode(1, 0, 1.0), toy_episode(2, 0, -0.5)
    noted, _ = with_logprobs(models, [first, other])
    copy = replace(noted[0], advantages=(None, -0.25, None, -0.25))
    options = toy_options(epochs=1, aggregation="sequence", old_logprobs="sampled")
    together = first_step(options, [noted[0], copy, noted[1]], models, tmp_path / "together")
    alone = [
        first_step(options, [episode], models, tmp_path / str(number))
        for number, episode in enumerate((noted[0], copy, noted[1]))
    ]
    assert together[0] == pytest.approx(sum(loss for loss, *_ in alone) / 3, abs=1e-6)
    mean = {name: sum(part[1][name] for part in alone) / 3 for name in together[1]}
    assert_close(together[1], mean, 1e-6)
    _, tokenizer = load_for_training(MODEL, models[0])
    data = weighted_rows(ChatFormat(tokenizer), [noted[0], copy, noted[1]], 256, sampled=True)
    assert (len(data.rows), data.counts.used, data.counts.merged) == (2, 3, 1)


def test_imitation_by_hand(models, tmp_path):
    """The mean negative log-likelihood of all answers of the successes, with its weight, is what it
    adds."""
    successes = [Success(episode.task, episode.messages) for episode in EPISODES if episode.success]
    options = toy_options(batch_size=16, epochs=1)
    loss, *_ = first_step(options, EPISODES, models, tmp_path / "without")
    options = options.model_copy(update={"imitate": 0.5})
    with_replay, *_ = first_step(options, EPISODES, models, tmp_path / "with", successes=successes)
    _, lists = with_logprobs(models, [e for e in EPISODES if e.success], noise=0.0)
    logps = np.concatenate(lists)
    assert with_replay - loss == pytest.approx(-0.5 * logps.mean(), abs=1e-5)


def test_rows_that_teach_nothing_are_left_out_and_counted(models):
    _, tokenizer = load_for_training(MODEL, models[0])
    chat = ChatFormat(tokenizer)
    flat = toy_episode(5, 0, 0.0)
    unsampled = replace(toy_episode(6, 0, 1.0), advantages=(None,) * 4)
    long = toy_episode(3, 0, 1.0)
    question = replace(long.messages[0], content=long.messages[0].content * 5)
    long = replace(long, messages=(question, *long.messages[1:]))
    given, length = (
        [long, flat, unsampled, toy_episode(0, 0, 1.0)],
        len(chat.encode(long.messages, False).ids),
    )
    counts = weighted_rows(chat, given, length - 1).counts
    left_out = (counts.too_long, counts.without_loss, counts.without_signal)
    assert (counts.used, left_out) == (1, (1, 1, 1))
    assert weighted_rows(chat, given, length).counts.used == 2


def test_sampled_tokens_are_trained_on_as_they_were_sampled(models):
    """A policy may sample tokens that its tokenizer would not: one a letter, for example."""
    _, tokenizer = load_for_training(MODEL, models[0])
    chat, episode = ChatFormat(tokenizer), toy_episode(1, 0, 1.0)
    spelt = [token for letter in "thought: 1" for token in tokenizer.encode(letter)]
    spelt.append(tokenizer.eos_token_id)
    assert len(spelt) > len(tokenizer.encode("thought: 1")) + 1
    answer = replace(episode.messages[1], content="thought: 1", token_ids=tuple(spelt))
    messages = (episode.messages[0], answer)
    (row,) = weighted_rows(
        chat, [replace(episode, messages=messages, advantages=(None, 1.0))], 256
    ).rows
    assert row.ids[row.targets].tolist() == spelt


def test_an_advantage_where_none_can_be_is_refused(models):
    _, tokenizer = load_for_training(MODEL, models[0])
    chat, episode = ChatFormat(tokenizer), toy_episode(1, 0, 1.0)
    with pytest.raises(DataError, match=r"message 1 \(user\) cannot have the advantage 1.0"):
        weighted_rows(chat, [replace(episode, advantages=(1.0, None, None, 1.0))], 256)
    with pytest.raises(DataError, match="4 messages and 1 advantages"):
        weighted_rows(chat, [replace(episode, advantages=(1.0,))], 256)
    with pytest.raises(DataError, match="no log-probabilities of the sampler: set old_logprobs"):
        weighted_rows(chat, [episode], 256, sampled=True)


def test_sampled_log_probabilities_are_those_at_temperature_1(models, tmp_path):
    context = replace(toy_context(toy_config()), temperature=0.5)
    learner = PolicyGradient(toy_options(old_logprobs="sampled"))
    with pytest.raises(UsageError, match=r"policy\.temperature is 0\.5"):
        learner.train(EPISODES, models[0], None, tmp_path / "out", context)
