"""What the terms of a query add to the scores of documents; the formula is in `rro.webshop.index`.
Knows neither folders nor words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rro.webshop.index_store import Array

# More than what sums in float32 lose, as a share.
SLACK = 1e-4
# The share of a query's weight that the commonest terms may have.
COMMON_SHARE = 0.2
# About so many blocks of documents are looked at for the best.
BLOCKS = 1 << 12


class Postings(NamedTuple):
    """The documents that contain a term, ascending, with their denominators, and the term's idf."""

    docs: Array
    denominators: Array
    idf: np.float32


class Match(NamedTuple):
    """A term of a query: its weight, and where it stands."""

    weight: np.float32
    postings: Postings

    def all_gains(self) -> Array:
        """What the term adds to the score of each document that contains it."""
        return self.weight - self.weight / self.postings.denominators

    def gains(self, docs: Array) -> Array:
        """What the term adds to the scores of `docs`, which are ascending."""
        all_docs, denominators = self.postings.docs, self.postings.denominators
        places = np.searchsorted(all_docs, docs)
        places[places == len(all_docs)] = 0
        gains = self.weight - self.weight / denominators[places]
        gains[all_docs[places] != docs] = 0
        return gains


def all_sums(matched: Sequence[Match], documents: int) -> Array:
    """Every document's score as float64, the terms added in the order of the query."""
    docs = np.concatenate([match.postings.docs for match in matched])
    denominators = np.concatenate([match.postings.denominators for match in matched])
    lengths = [len(match.postings.docs) for match in matched]
    weights = np.repeat(np.array([match.weight for match in matched], np.float32), lengths)
    return np.bincount(docs, weights - weights / denominators, minlength=documents)


def sums_of(matched: Sequence[Match], docs: Array) -> Array:
    """The same sums of `docs` alone."""
    sums = np.zeros(len(docs))
    for match in matched:
        sums += match.gains(docs)
    return sums


def floor(sums: Array, k: int) -> float:
    """A score that at least `k` documents reach: the k-th highest of the blocks' maxima. It saves
    sorting a million scores of a large catalogue."""
    block = max(1, len(sums) // BLOCKS)
    maxima = sums[: len(sums) // block * block].reshape(-1, block).max(axis=1)
    return highest(maxima, k) if k <= len(maxima) else 0.0


def highest(sums: Array, k: int) -> float:
    """The k-th highest, less what rounding may have lost."""
    return float(np.partition(sums, -k)[-k]) * (1 - SLACK)


def parted(matched: Sequence[Match]) -> tuple[list[Match], list[Match]]:
    """The terms of a query, rarest first, and the commonest of them apart, which have up to
    COMMON_SHARE of the weight."""
    terms = sorted(matched, key=lambda match: len(match.postings.docs))
    weights = np.cumsum([match.weight for match in terms])
    rare = int(np.searchsorted(weights, (1 - COMMON_SHARE) * weights[-1])) + 1
    return terms[:rare], terms[rare:]
