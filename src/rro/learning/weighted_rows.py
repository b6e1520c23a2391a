"""From episodes with advantages to tokenised rows: which tokens carry loss, and with what
advantage.

Rows are tokenised by the policy's own chat format: tokens that the policy sampled are trained on as
they were sampled. Nothing is truncated. Knows neither losses nor batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from rro.errors import DataError
from rro.learning.base import RowCounts
from rro.learning.successes import Success
from rro.models.chat import ChatFormat
from rro.types import WeightedEpisode

Floats = NDArray[np.float64]
NO_SIGNAL = 1e-9
"""A row whose advantages are all nearer to 0 than this teaches nothing."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A tokenised episode, or several with the same tokens.

    `targets` are the positions in `ids` of the tokens that carry loss; `weight`, `positive` and
    `negative` have one number for each: its weight in the mean, and the sums of weight times
    advantage of the episodes whose advantage there is positive, and negative. So an episode that
    occurs twice counts twice, exactly. `old` and `reference` are the targets' log-probabilities at
    the start and under the reference policy, where they are used. `episodes`: how many the row
    stands for; 0 for a replayed success, whose advantages are 0. `number`: its place among the rows
    of a plan."""

    task: str
    ids: NDArray[np.int64]
    targets: NDArray[np.int64]
    weight: Floats
    positive: Floats
    negative: Floats
    old: Floats | None = None
    reference: Floats | None = None
    episodes: int = 1
    number: int = -1

    @property
    def key(self) -> tuple[bytes, ...]:
        """Equal for rows with the same tokens, targets and old log-probabilities."""
        arrays = (self.ids, self.targets, *(() if self.old is None else (self.old,)))
        return tuple(array.tobytes() for array in arrays)

    def merged(self, other: TokenRow) -> TokenRow:
        """This row and another with the same key as one."""
        return replace(
            self,
            weight=self.weight + other.weight,
            positive=self.positive + other.positive,
            negative=self.negative + other.negative,
            episodes=self.episodes + other.episodes,
        )


@dataclass(frozen=True, slots=True)
class WeightedRows:
    """The rows of one call, without those that teach nothing, each text once; what became of the
    given episodes, the means of positive and of negative advantages over their tokens, and a digest
    of the content. `given` counts the episodes that fit, `silent` is the share of tasks none of
    whose episodes has a signal."""

    rows: tuple[TokenRow, ...]
    counts: RowCounts
    given: int
    positive: float
    negative: float
    silent: float
    digest: str


def weighted_rows(
    chat: ChatFormat,
    episodes: Sequence[WeightedEpisode],
    max_length: int,
    *,
    aggregation: str = "token",
    sampled: bool = False,
    scale: bool = False,
    advantages: bool = True,
) -> WeightedRows:
    """Tokenise episodes. `aggregation` "sequence" weights each token by one over its episode's
    tokens; `sampled` keeps the sampler's log-probabilities; `scale` divides the advantages by their
    standard deviation over all tokens with loss; without `advantages` they all count as 0.

    Raises DataError for an episode that does not fit its own advantages or log-probabilities."""
    episodes = episodes if advantages else [_silent(episode) for episode in episodes]
    encoded = [row for episode in episodes for row in _rows(chat, episode, sampled)]
    fits = [row for row in encoded if len(row.ids) <= max_length]
    with_loss = [row for row in fits if len(row.targets)]
    deviation = _deviation(with_loss) if scale else 1.0
    scaled = [_scaled(row, deviation, aggregation) for row in with_loss]
    used = [row for row in scaled if np.any(row.positive) or np.any(row.negative)]
    merged: dict[tuple[bytes, ...], TokenRow] = {}
    for row in used:
        merged[row.key] = merged[row.key].merged(row) if row.key in merged else row
    counts = RowCounts(
        used=len(used),
        too_long=len(encoded) - len(fits),
        without_loss=len(fits) - len(with_loss),
        tokens=sum(len(row.ids) for row in used),
        loss_tokens=sum(len(row.targets) for row in used),
        without_signal=len(with_loss) - len(used),
        merged=len(used) - len(merged),
    )
    positive, negative = _mean(scaled, "positive"), _mean(scaled, "negative")
    rows = tuple(merged.values())
    tasks, heard = {row.task for row in with_loss}, {row.task for row in used}
    silent = 1 - len(heard) / len(tasks) if tasks else 0.0
    return WeightedRows(rows, counts, len(fits), positive, negative, silent, _digest(rows))


def _silent(episode: WeightedEpisode) -> WeightedEpisode:
    nothing = (None if advantage is None else 0.0 for advantage in episode.advantages)
    return replace(episode, advantages=tuple(nothing))


def success_rows(chat: ChatFormat, successes: Sequence[Success], max_length: int) -> list[TokenRow]:
    """Tokenise successes, every answer of the policy or an expert with loss; those that are too
    long are left out."""
    rows = []
    for success in successes:
        for encoded in chat.steps(success.messages):
            targets = np.flatnonzero(encoded.mask)
            if len(encoded.ids) <= max_length and len(targets):
                rows.append(_plain_row(success.task, encoded.ids, targets, episodes=0))
    return rows


def _plain_row(
    task: str, ids: Sequence[int], targets: NDArray[np.int64], episodes: int = 1
) -> TokenRow:
    nothing = np.zeros(len(targets))
    row = np.array(ids, dtype=np.int64)
    return TokenRow(task, row, targets, np.ones(len(targets)), nothing, nothing, episodes=episodes)


def _rows(chat: ChatFormat, episode: WeightedEpisode, sampled: bool) -> list[TokenRow]:
    """An episode's row, or a row for each of its answers where each has a prompt of its own. The
    advantages are not yet scaled."""
    if chat.keeps:
        return [_row(chat, episode, sampled)]
    return [
        _row(chat, step, sampled)
        for number, advantage in enumerate(episode.advantages)
        if advantage is not None
        for step in [_up_to(episode, number)]
    ] or [_row(chat, episode, sampled)]


def _up_to(episode: WeightedEpisode, number: int) -> WeightedEpisode:
    """An episode up to a message, whose advantage alone counts."""
    logprobs = episode.logprobs
    return replace(
        episode,
        messages=episode.messages[: number + 1],
        advantages=(*[None] * number, episode.advantages[number]),
        logprobs=None if logprobs is None else logprobs[: number + 1],
    )


def _row(chat: ChatFormat, episode: WeightedEpisode, sampled: bool) -> TokenRow:
    """The row of an episode, its advantages not yet scaled."""
    ids = chat.encode(episode.messages, add_generation_prompt=False).ids
    targets, advantages, old = list[int](), list[float](), list[float]()
    for number, where, advantage in _answers(chat, episode):
        targets += where
        advantages += [advantage] * len(where)
        if sampled:
            old += _sampled(episode, number, len(where))
    values = np.array(advantages)
    return replace(
        _plain_row(episode.task, ids, np.array(targets, dtype=np.int64)),
        positive=values.clip(min=0),
        negative=values.clip(max=0),
        old=np.array(old) if sampled else None,
    )


def _answers(chat: ChatFormat, episode: WeightedEpisode) -> Iterator[tuple[int, list[int], float]]:
    """The messages with an advantage: number, the positions of their sampled tokens, advantage."""
    if len(episode.advantages) != len(episode.messages):
        raise DataError(
            f"an episode of task {episode.task} has {len(episode.messages)} messages and "
            f"{len(episode.advantages)} advantages: give one for each, None where it was not "
            "sampled"
        )
    for number, advantage in enumerate(episode.advantages):
        if advantage is None:
            continue
        if not np.isfinite(advantage) or episode.messages[number].role != "assistant":
            raise DataError(
                f"an episode of task {episode.task}: message {number + 1} "
                f"({episode.messages[number].role}) cannot have the advantage {advantage}"
            )
        start = len(chat.encode(episode.messages[:number], True).ids)
        mask = chat.encode(episode.messages[: number + 1], False).mask
        where = [position for position in range(start, len(mask)) if mask[position]]
        yield number, where, 0.0 if abs(advantage) < NO_SIGNAL else advantage


def _sampled(episode: WeightedEpisode, number: int, tokens: int) -> tuple[float, ...]:
    """The sampler's log-probabilities of a message's tokens."""
    logprobs = episode.logprobs[number] if episode.logprobs else None
    if logprobs is None or len(logprobs) != tokens:
        raise DataError(
            f"an episode of task {episode.task}: message {number + 1} has {tokens} tokens and "
            f"{'no' if logprobs is None else len(logprobs)} log-probabilities of the sampler: set "
            'old_logprobs to "recomputed"'
        )
    return logprobs


def _deviation(rows: Sequence[TokenRow]) -> float:
    """The standard deviation of the advantages over all tokens; 1 where they are all alike."""
    values = [row.positive + row.negative for row in rows]
    return (float(np.concatenate(values).std()) if values else 0.0) or 1.0


def _scaled(row: TokenRow, deviation: float, aggregation: str) -> TokenRow:
    weight = 1.0 / len(row.targets) if aggregation == "sequence" else 1.0
    return replace(
        row,
        weight=row.weight * weight,
        positive=row.positive * (weight / deviation),
        negative=row.negative * (weight / deviation),
    )


def _mean(rows: Sequence[TokenRow], sign: str) -> float:
    """The mean of the advantages of one sign over their tokens, by weight; 0 where there are
    none."""
    sums: list[Floats] = [getattr(row, sign) for row in rows]
    total = sum(float(values.sum()) for values in sums)
    weights = sum(
        float(row.weight[values != 0].sum()) for row, values in zip(rows, sums, strict=True)
    )
    return total / weights if weights else 0.0


def _digest(rows: Sequence[TokenRow]) -> str:
    digest = blake2b(digest_size=16)
    for row in rows:
        for part in row.key:
            digest.update(part)
        for values in (row.weight, row.positive, row.negative):
            digest.update(values.tobytes())
    return digest.hexdigest()
