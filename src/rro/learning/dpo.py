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
    """Optimises a policy on preference pairs against a reference policy. In iterated RRO the
    reference stays the SFT policy."""

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
        return train_dpo(
            self.options, pairs, start, reference, output, context, len(rows) - len(pairs)
        )


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
