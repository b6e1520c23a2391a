"""A toy that trains within seconds: a model of 40,000 parameters, and conversations that it can
learn."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rro.config import Config, parse_config
from rro.learning.base import Observe, TrainingContext, TrainingReport
from rro.learning.dpo import Dpo
from rro.learning.policy_gradient import PolicyGradient, PolicyGradientConfig
from rro.learning.sft import Sft
from rro.models.loading import build_tiny
from rro.types import Message, PreferencePair, ProcessReward, Source, WeightedEpisode

# A second thread gains nothing at this size, and costs up to 25 times on a busy machine.
torch.set_num_threads(1)

TINY = {
    "hidden_size": 32, "intermediate_size": 64, "layers": 2, "heads": 2, "kv_heads": 2,
    "vocabulary": 280, "context": 256,
}  # fmt: skip


def toy_config(**overrides: Any) -> Config:
    """Quick settings in float32 on the CPU; `overrides` are sections of the configuration."""
    tree: dict[str, Any] = {
        "model": {"tiny": TINY, "device": "cpu"},
        "sft": {
            "epochs": 4,
            "learning_rate": 5e-3,
            "batch_size": 8,
            "micro_batch": 4,
            "precision": "float32",
        },
        "dpo": {
            "epochs": 4,
            "learning_rate": 1e-3,
            "batch_size": 8,
            "micro_batch": 4,
            "precision": "float32",
        },
    }
    for section, values in overrides.items():
        tree.setdefault(section, {}).update(values)
    return parse_config(tree, "the toy")


class Killed(BaseException):
    """Stands for a kill: no code handles it."""


def kill_at(step: int) -> Observe:
    """Raises Killed when that step is recorded."""

    def observe(record: Mapping[str, Any]) -> None:
        if record["step"] == step:
            raise Killed

    return observe


def answer(content: str) -> Message:
    """An expert's answer."""
    return Message("assistant", content, Source.EXPERT)


def toy_conversation(number: int) -> tuple[Message, ...]:
    """Two turns; lengths differ from one conversation to the next."""
    draw = random.Random(number)
    a, b = draw.randrange(10), draw.randrange(10)
    return (
        Message("user", f"add {a} and {b}" + ", please" * draw.randrange(4)),
        answer(f"thought: {a + b}"),
        Message("user", "so?"),
        answer(f"the sum is {a + b}"),
    )


def toy_pair(number: int, kind: str = "trajectory") -> PreferencePair:
    """Whole conversations after the first question (kind "trajectory"), or single messages after
    the second."""
    good = toy_conversation(number)
    bad = (
        good[0],
        answer("thought: none"),
        Message("user", "so what?"),
        answer("no idea" * (1 + number % 3)),
    )
    start = 1 if kind == "trajectory" else 3
    rewards = (ProcessReward((1.0,), "toy", exact=True), ProcessReward((0.0,), "toy", exact=True))
    return PreferencePair(
        prompt=good[:start],
        chosen=good[start:],
        rejected=bad[start:],
        task=str(number),
        step=start // 2,
        chosen_reward=rewards[0],
        rejected_reward=rewards[1],
        strategy="toy",
        kind="trajectory" if kind == "trajectory" else "step",
    )


def build_toy(config: Config, folder: Path, seed: int = 0) -> Path:
    """Save an untrained model and its tokenizer to `folder`; another seed gives other weights and
    the same tokenizer."""
    texts = [message.content for number in range(20) for message in toy_conversation(number)]
    build_tiny(config.model.tiny, texts, seed, folder)
    return folder


def toy_context(config: Config, observe: Observe | None = None) -> TrainingContext:
    """The context that a run with this configuration gives its learners."""
    return TrainingContext(config.model, config.seed, config.name, observe=observe)


def train_sft(
    config: Config,
    conversations: Sequence[Sequence[Message]],
    start: Path,
    output: Path,
    observe: Observe | None = None,
) -> TrainingReport:
    """Train by SFT with the options in `config.sft`."""
    return Sft(config.sft).train(conversations, start, None, output, toy_context(config, observe))


def train_dpo(
    config: Config,
    pairs: Sequence[PreferencePair],
    start: Path,
    reference: Path,
    output: Path,
    observe: Observe | None = None,
) -> TrainingReport:
    """Train by DPO with the options in `config.dpo`."""
    return Dpo(config.dpo).train(pairs, start, reference, output, toy_context(config, observe))


def toy_options(**options: Any) -> PolicyGradientConfig:
    """Quick settings of the policy gradient in float32."""
    settings = {"batch_size": 8, "learning_rate": 1e-3, "precision": "float32", "micro_batch": 4}
    return PolicyGradientConfig(**{**settings, **options})


def toy_episode(number: int, draw: int = 0, advantage: float | None = None) -> WeightedEpisode:
    """One of the episodes of a task; `advantage` (default: drawn) is that of both answers. Those of
    one task begin alike, and some are equal."""
    question, first, second, _ = toy_conversation(number)
    chance = random.Random(f"{number}/{draw}")
    if advantage is None:
        advantage = chance.choice([-1.5, -0.5, 0.5, 1.0])
    last = "the sum is " + chance.choice(["seven", "eight", "nothing that I know of"])
    sampled = [
        Message(m.role, text, Source.POLICY) for m, text in ((first, first.content), (first, last))
    ]
    return WeightedEpisode(
        task=str(number),
        messages=(question, sampled[0], second, sampled[1]),
        advantages=(None, advantage, None, advantage),
        reward=float(advantage > 0),
        success=advantage > 0.75,
    )


def toy_group(tasks: int = 4, size: int = 4) -> list[WeightedEpisode]:
    """Some episodes of each of some tasks."""
    return [toy_episode(number, draw) for number in range(tasks) for draw in range(size)]


def train_policy_gradient(
    options: PolicyGradientConfig,
    episodes: Sequence[WeightedEpisode],
    start: Path,
    output: Path,
    observe: Observe | None = None,
    reference: Path | None = None,
    **overrides: Any,
) -> TrainingReport:
    """Train by policy gradient; `overrides` are sections of the configuration."""
    context = toy_context(toy_config(**overrides), observe)
    return PolicyGradient(options).train(episodes, start, reference, output, context)


def train_toy(learner: str, base: Path, output: Path, kill: int = 0) -> None:
    """Train by one of rro's learners, with a checkpoint after step 5; the process kills itself
    after step `kill`."""
    common = {"save_steps": 5, "micro_batch": 2}

    def observe(record: Mapping[str, Any]) -> None:
        if record["step"] == kill:
            os.kill(os.getpid(), signal.SIGKILL)

    config = toy_config(sft={**common, "epochs": 2}, dpo={**common, "sft_weight": 0.5})
    if learner == "sft":
        train_sft(config, [toy_conversation(n) for n in range(48)], base, output, observe)
    elif learner == "dpo":
        train_dpo(config, [toy_pair(n) for n in range(16)], base, base, output, observe)
    else:
        options = toy_options(**common, epochs=3, imitate=0.5, imitate_batch=3, kl=0.1)
        train_policy_gradient(options, toy_group(tasks=6), base, output, observe, base)
