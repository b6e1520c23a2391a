"""Direct preference optimisation, as a learner (Rafailov et al., arXiv 2305.18290).

Knows nothing of TRL; `dpo_trainer` does the training."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from rro.config import DpoConfig
from rro.learning.base import TrainingContext, TrainingReport
from rro.seeds import derive_seed
from rro.types import PreferencePair


class Dpo:
    """Optimises a policy on preference pairs against a reference policy: in iterated RRO always the
    SFT policy, or the policy at the start of the round."""

    name: str = "dpo"
    takes: str = "pairs"

    def __init__(self, options: DpoConfig) -> None:
        self.options = options

    def train(
        self,
        rows: Sequence[PreferencePair],
        start: Path | None,
        reference: Path | None,
        output: Path,
        context: TrainingContext,
    ) -> TrainingReport:
        """See `Learner.train`."""
        # TRL takes seconds to import.
        from rro.learning.dpo_trainer import train_dpo

        share = 1.0 if self.options.endings is None else self.options.endings
        seed = derive_seed(context.seed, "endings", context.iteration)
        pairs = cap_terminal_rejections(rows, share, seed)
        options = of_round(self.options, context.iteration)
        reference = start if options.reference == "previous" else reference
        return train_dpo(options, pairs, start, reference, output, context, len(rows) - len(pairs))


def of_round(options: DpoConfig, iteration: int) -> DpoConfig:
    """The settings of a round, counted from 1: from the second on, those for later rounds."""
    rate, beta = options.learning_rate, options.beta
    if iteration > 1:
        rate, beta = rate * options.later_rate, options.later_beta or beta
    update = {"learning_rate": rate, "beta": beta, "later_rate": 1.0, "later_beta": None}
    return options.model_copy(update=update)


def cap_terminal_rejections(
    pairs: Sequence[PreferencePair], share: float, seed: int
) -> list[PreferencePair]:
    """Drop pairs in which only the rejected side ends the episode until they are at most `share` of
    the result. Returns the rest in their order; `seed` decides which ones stay. Where all pairs are
    of this kind, all stay.

    The value of an action that ends the episode is known without a rollout, so credible pairs
    against it are cheap and many; trained on all of them a policy stops ending its episodes
    (docs/exploration.md)."""
    terminal = [
        n
        for n, pair in enumerate(pairs)
        if pair.rejected_reward.exact and not pair.chosen_reward.exact
    ]
    others = len(pairs) - len(terminal)
    most = len(terminal) if share == 1 or not others else int(share / (1 - share) * others + 1e-9)
    if len(terminal) <= most:
        return list(pairs)
    dropped = set(terminal) - set(random.Random(seed).sample(terminal, most))
    return [pair for n, pair in enumerate(pairs) if n not in dropped]
