"""Clipped policy gradient, as a learner: episodes with an advantage for each message in, a
checkpoint out (PPO's objective, arXiv 1707.06347; group advantages as in GRPO, arXiv 2402.03300).

Where the advantages come from is a credit's business. Knows nothing of torch;
`policy_gradient_trainer` does the training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from rro.config import TrainingConfig
from rro.config.training import Scheduler
from rro.errors import UsageError
from rro.learning.base import TrainingContext, TrainingReport
from rro.types import WeightedEpisode


class PolicyGradientConfig(TrainingConfig):
    """Clipped policy gradient. The loss of a sampled token is -min(r A, clip(r, 1 - clip, 1 +
    clip_high) A), r the ratio of its probability to that when it was sampled, A its message's
    advantage. Defaults suit a small model from scratch."""

    epochs: float = Field(2, gt=0)
    """Passes over the episodes."""
    learning_rate: float = Field(3e-4, gt=0)
    """Peak learning rate of AdamW. 3e-4 suits a model of a million parameters; verl-agent: 1e-6
    for 1.5 billion."""
    final_learning_rate: float | None = Field(None, ge=0)
    """What the learning rate falls to, linearly over the rounds (over their generated tokens where
    `rounds.generated_tokens` ends them): round i of n has the rate at (i - 1) / n of the way, so
    the last one not yet the last rate. Default: it stays."""
    batch_size: int = Field(64, ge=1)
    """Episodes per optimiser step, about, over all processes: the episodes are divided evenly into
    the nearest whole number of steps, and those of one task stay together. A multiple of the
    number of processes."""
    micro_batch: int = Field(8, ge=1)
    """Episodes per forward pass and process at most. Does not change the training."""
    scheduler: Scheduler = "constant"
    """Learning-rate schedule, as Transformers names it."""
    warmup: float = Field(0.0, ge=0, le=1)
    """Share of the optimiser steps in which the learning rate rises."""
    clip: float = Field(0.2, gt=0, lt=1)
    """How far below 1 a ratio may fall before its token carries no more gradient."""
    clip_high: float | None = Field(None, gt=0)
    """How far above 1 a ratio may rise before its token carries no more gradient. Default: as
    `clip`. DAPO (arXiv 2503.14476): 0.28."""
    kl: float = Field(0.0, ge=0)
    """Weight of the divergence from the reference policy, estimated for each token as r (q - log q
    - 1), q the reference's probability over the policy's: GRPO's estimator, times the ratio, which
    makes its gradient unbiased (DeepSeek-V3.2, arXiv 2512.02556). verl-agent: 0.01."""
    aggregation: Literal["token", "sequence"] = "token"
    """How the tokens' losses become that of a step: "token", their mean over the whole step
    (DAPO); "sequence", the mean over each episode's tokens, then over the episodes (GRPO)."""
    old_logprobs: Literal["recomputed", "sampled"] = "recomputed"
    """The log-probabilities that ratios are taken to: "recomputed" with the weights at the start
    (where the first step holds all episodes, by its own forward pass), or "sampled", the sampler's
    own, which may differ from the trainer's by rounding and are those at temperature 1."""
    scale: Literal["none", "batch"] = "none"
    """Whether advantages are divided by their standard deviation over all sampled tokens of the
    call."""
    advantages: bool = True
    """Whether advantages are learned from. Without them only successes are imitated, in as many
    steps: a control, which says what the advantages add."""
    imitate: float = Field(0.0, ge=0)
    """Weight of the mean negative log-likelihood of replayed successes, added to the loss of each
    step. Successes are whole episodes of this and of earlier rounds."""
    imitate_batch: int = Field(32, ge=1)
    """Successes that each step replays at most, drawn anew for each."""
    imitate_per_task: int = Field(1, ge=1)
    """Successes kept of each task: the shortest."""
    keep_moments: bool = True
    """Whether the optimiser's moments are saved beside the checkpoint, and taken over from the
    checkpoint that the training starts from. A LoRA adapter begins anew, and so do its moments."""
    share_prefixes: bool | Literal["auto"] = "auto"
    """Whether tokens that episodes of one forward pass begin with alike are computed once. Exact.
    auto: for models above 50 million parameters, where it pays (docs/training.md). Only for Llama,
    Qwen2, Qwen3 and SmolLM3 without sliding windows."""

    def at(self, progress: float) -> PolicyGradientConfig:
        """The options of a round with that share of the run behind it, 0 to 1."""
        if self.final_learning_rate is None:
            return self
        rate = self.learning_rate + progress * (self.final_learning_rate - self.learning_rate)
        return self.model_copy(update={"learning_rate": rate, "final_learning_rate": None})


class PolicyGradient:
    """Raises the probability of messages with a positive advantage and lowers that of the others,
    within the clip range; optionally imitates successes and stays near a reference policy."""

    name: str = "policy_gradient"
    takes: str = "advantages"

    def __init__(self, options: PolicyGradientConfig) -> None:
        self.options = options

    @property
    def wants_logprobs(self) -> bool:
        """Whether the exploration is to keep the log-probabilities of what it samples."""
        return self.options.old_logprobs == "sampled"

    def check(self, temperature: float) -> None:
        """Raises UsageError for the sampler's log-probabilities at a temperature that is not
        theirs."""
        if self.wants_logprobs and temperature != 1:
            raise UsageError(
                'optimise.policy_gradient.old_logprobs = "sampled" are those at temperature 1, and '
                f"policy.temperature is {temperature:g}: set that to 1, or this to "
                '"recomputed"'
            )

    def train(
        self,
        rows: Sequence[WeightedEpisode],
        start: Path | None,
        reference: Path | None,
        output: Path,
        context: TrainingContext,
    ) -> TrainingReport:
        """See `Learner.train`. `reference` is loaded only where `kl` is above 0. Raises UsageError
        for the sampler's log-probabilities at a temperature that is not theirs."""
        self.check(context.temperature)
        # Transformers takes seconds to import.
        from rro.learning.policy_gradient_trainer import train_policy_gradient

        options = self.options.at(context.progress)
        return train_policy_gradient(options, rows, start, reference, output, context)
