"""The search index: ranks exactly as Lucene 8.11's BM25 with Anserini's settings, bit for bit.

The score of a document is the sum, over the query's distinct terms, of

    w - w / (1 + tf / (k1 (1 - b + b L)))    with w = (count in the query) * idf

where tf is the term's count in the document and L the document's length over the mean, the length
rounded to one of the 256 values that Lucene stores in a byte. All arithmetic is float32, except for
the sum, which is float64 and rounded to float32 at the end. Equal scores rank by id. So one number
is stored per posting: the bracket after the division sign, here called the denominator.

`Index` only sees arrays, so an index in memory and one mapped from a folder share all code.
Building does too: the texts are inverted in runs of bounded size, and the runs are merged. Sources:
Lucene's BM25Similarity and SmallFloat; Anserini's BagOfWordsQueryGenerator and tie-breaking. Knows
nothing of products.
"""

from __future__ import annotations

import heapq
import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from typing import Self

import numpy as np

from rro.errors import DataError
from rro.webshop.analysis import analyze, query_terms
from rro.webshop.index_store import (
    Array,
    MemoryStore,
    Store,
    StringTable,
    new_folder,
    open_folder,
    put,
)
from rro.webshop.scoring import Match, Postings, all_sums, floor, highest, parted, sums_of

# Anserini's defaults, which WebShop uses.
K1, B = np.float32(0.9), np.float32(0.4)
# Raise the version with any change to the arrays or to the text analysis, so that folders built
# before are refused.
HEADER = {"format": "rro webshop index", "version": 1, "k1": float(K1), "b": float(B)}

# Tokens inverted at a time, in about 200 MB of memory.
RUN_TOKENS = 4_000_000
# In a catalogue of up to so many documents it is faster to score them all.
SMALL = 1 << 14
# Up to so many documents the commonest terms of a query are looked up for those alone.
FEW = 1 << 13
# Lucene's byte: values below this are lengths; the others encode length minus 24 as a float with 4
# bits of mantissa, up to 2^31.
_EXACT = 24


class Index:
    """A search index. Documents are numbered from 0, in the order in which they were added.

    `arrays` are those that `build` makes, by name. `ids` are the documents' ids.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays = arrays
        self.ids, self._terms = (StringTable.named(name, arrays) for name in ("id", "term"))
        self._starts, self._idf = arrays["starts"], arrays["idf"]
        self._docs, self._denominators = arrays["docs"], arrays["denominators"]
        # The place of each document's id among all ids in ascending order.
        self._ranks = arrays["ranks"]
        # Arrays of zeros, one for each search that was under way at once.
        self._spare: list[Array] = []
        # The cached postings are views of the arrays, not copies.
        self._postings = lru_cache(maxsize=1 << 15)(self._look_up)

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Map an index written by `build_folder` or `save` into memory; searches read it page by
        page. Raises DataError if the folder has no index, or a damaged one, or another version."""
        return cls(open_folder(Path(folder), HEADER))

    def save(self, folder: Path | str) -> None:
        """Write the index into a new folder. Raises DataError if the folder exists, RroError if it
        cannot be written."""
        with new_folder(Path(folder), HEADER) as store:
            for name, values in self.arrays.items():
                put(store, name, values)

    def __len__(self) -> int:
        """Number of documents."""
        return len(self._ranks)

    def search(self, query: str, k: int = 50) -> list[tuple[int, float]]:
        """The best `k` documents as (number, score), best first.

        Documents that share no term with the query are left out. Scores are float32 values. Raises
        QueryError if the original engine fails on the query.
        """
        matched = [
            Match(np.float32(count) * postings.idf, postings)
            for term, count in query_terms(query).items()
            if (postings := self._postings(term))
        ]
        if not matched:
            return []
        if len(self) <= SMALL:
            sums = all_sums(matched, len(self))
            docs = np.flatnonzero(sums)
            sums = sums[docs]
        else:
            docs = self._candidates(matched, k)
            sums = sums_of(matched, docs)
        scores = sums.astype(np.float32)
        # Positive floats sort as their bits do. Subtracting the rank of the id breaks ties.
        keys = (scores.view(np.int32).astype(np.int64) << 32) - self._ranks[docs]
        best = np.argsort(keys)[: -k - 1 : -1]
        return list(zip(docs[best].tolist(), scores[best].tolist(), strict=True))

    def _candidates(self, matched: Sequence[Match], k: int) -> Array:
        """Documents, ascending, among which are the best `k`, by sums in float32.

        The commonest terms add little to any score, but have most of the postings. If that little
        cannot make up for the others but in a few documents, they are looked up for those alone.
        """
        sums = self._spare.pop() if self._spare else np.zeros(len(self), np.float32)
        rare, common = parted(matched)
        for added, late in ((rare, common), (common, [])):
            for match in added:
                np.add.at(sums, match.postings.docs, match.all_gains())
            least = floor(sums, k) - float(sum(match.weight for match in late))
            docs = np.flatnonzero(sums >= least if least > 0 else sums)
            if least > 0 and len(docs) < FEW:
                break
        totals = sums[docs]
        for match in late:
            totals += match.gains(docs)
        sums.fill(0)
        self._spare.append(sums)
        return docs if len(docs) <= k else docs[totals >= highest(totals, k)]

    def _look_up(self, term: str) -> Postings | None:
        number = self._terms.find(term.encode())
        if number is None:
            return None
        own = slice(int(self._starts[number]), int(self._starts[number + 1]))
        return Postings(self._docs[own], self._denominators[own], self._idf[number])


def build(ids: Sequence[str], texts: Iterable[str]) -> Index:
    """Index `texts` in memory. `ids`, one for each text, break ties.

    Raises DataError if no text has a term, ValueError if the numbers of ids and texts differ.
    """
    store = MemoryStore()
    add_index(store, ids, texts)
    return Index(store.arrays)


def build_folder(
    folder: Path | str, ids: Sequence[str], texts: Iterable[str], run_tokens: int = RUN_TOKENS
) -> Index:
    """As `build`, but into a new folder for `Index.open`; returns the opened index.

    Holds about `run_tokens` tokens in memory at a time. Also raises DataError if the folder exists,
    RroError if it cannot be written.
    """
    with new_folder(Path(folder), HEADER) as store:
        add_index(store, ids, texts, run_tokens)
    return Index.open(folder)


@dataclass(frozen=True, slots=True)
class _Run:
    """The inverted texts of a range of documents: its terms in order, for each the number of
    documents that contain it, for each of those the document and the term's frequency; and the
    length of each document in terms."""

    term_blob: Array
    term_offsets: Array
    counts: Array
    docs: Array
    frequencies: Array
    lengths: Array

    def moved_to(self, folder: Path) -> _Run:
        """The same run, mapped from files in `folder`."""
        number = len(list(folder.iterdir()))
        arrays = []
        for field in fields(self):
            path = folder / f"{number:06d}-{field.name}.npy"
            np.save(path, getattr(self, field.name))
            arrays.append(np.asarray(np.load(path, mmap_mode="r")))
        return _Run(*arrays)


def add_index(
    store: Store, ids: Sequence[str], texts: Iterable[str], run_tokens: int = RUN_TOKENS
) -> None:
    """Put the arrays of an index into `store`; arguments and errors as for `build_folder`."""
    with store.scratch() as folder:
        runs = [run.moved_to(folder) if folder else run for run in _runs(iter(texts), run_tokens)]
        documents = sum(len(run.lengths) for run in runs)
        if documents != len(ids):
            raise ValueError(f"{len(ids)} ids for {documents} texts")
        if not any(run.lengths.any() for run in runs):
            raise DataError(
                "no product has a word that can be searched: is this the right catalogue?"
            )
        store.table("id", (id.encode() for id in ids))
        ranks = np.empty(documents, np.int32)
        ranks[sorted(range(documents), key=ids.__getitem__)] = np.arange(documents, dtype=np.int32)
        put(store, "ranks", ranks)
        _merge(store, runs)


def _runs(texts: Iterator[str], run_tokens: int) -> Iterator[_Run]:
    first = 0
    while (run := _inverted(texts, first, run_tokens)) is not None:
        yield run
        first += len(run.lengths)


def _inverted(texts: Iterator[str], first: int, run_tokens: int) -> _Run | None:
    """The next texts, up to `run_tokens` tokens, numbered from `first`. None at the end."""
    # A new term gets the next number.
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    tokens, lengths = array("i"), array("i")
    for text in texts:
        terms = analyze(text)
        tokens.extend(map(numbers.__getitem__, terms))
        lengths.append(len(terms))
        if len(tokens) >= run_tokens:
            break
    if not lengths:
        return None
    # By code point, which is also the order of their UTF-8.
    words = sorted(numbers)
    places = np.empty(len(words), np.int64)
    places[[numbers[word] for word in words]] = np.arange(len(words))
    # A single sort, by term and document, counts equal pairs.
    owners = np.repeat(np.arange(len(lengths)), lengths)
    keys, frequencies = np.unique(
        places[np.array(tokens, np.int64)] * len(lengths) + owners, return_counts=True
    )
    term, doc = np.divmod(keys, len(lengths))
    counts = np.bincount(term, minlength=len(words))
    return _Run(
        *StringTable.pack(word.encode() for word in words),
        counts,
        (doc + first).astype(np.int32),
        frequencies.astype(np.int32),
        np.array(lengths, np.int32),
    )


def _merge(store: Store, runs: Sequence[_Run]) -> None:
    """Concatenate each term's postings from the runs, whose documents are in ascending order."""
    terms, places = _merged_terms(runs)
    store.table("term", terms)
    counts = np.zeros(len(terms), np.int64)
    for run, place in zip(runs, places, strict=True):
        counts[place] += run.counts
    starts = np.concatenate([[0], np.cumsum(counts)])
    lengths = np.concatenate([run.lengths for run in runs])
    put(store, "starts", starts)
    put(store, "idf", _idf(counts, int(np.count_nonzero(lengths))))

    factors = _length_factors(lengths)
    docs = store.new("docs", np.int32, int(starts[-1]))
    denominators = store.new("denominators", np.float32, int(starts[-1]))
    # Where each term's next posting goes.
    free = starts[:-1].copy()
    for run, place in zip(runs, places, strict=True):
        own = np.cumsum(run.counts) - run.counts
        target = np.repeat(free[place] - own, run.counts) + np.arange(len(run.docs))
        docs[target] = run.docs
        denominators[target] = (
            np.float32(1) + run.frequencies.astype(np.float32) * factors[run.docs]
        )
        free[place] += run.counts


def _merged_terms(runs: Sequence[_Run]) -> tuple[list[bytes], list[Array]]:
    """All terms in order, and for each run the places of its terms among them."""
    places, terms = [array("q") for _ in runs], list[bytes]()
    tables = (StringTable(run.term_blob, run.term_offsets) for run in runs)
    for term, number in heapq.merge(
        *(zip(table, repeat(number)) for number, table in enumerate(tables))
    ):
        if not terms or term != terms[-1]:
            terms.append(term)
        places[number].append(len(terms) - 1)
    return terms, [np.array(own, np.int64) for own in places]


def _idf(counts: Array, documents: int) -> Array:
    """Inverse document frequencies, among the documents that have any term."""
    values, where = np.unique(counts, return_inverse=True)
    logarithms = [
        math.log(1 + (documents - count + 0.5) / (count + 0.5)) for count in values.tolist()
    ]
    return np.array(logarithms, np.float32)[where]


def _length_factors(lengths: Array) -> Array:
    """1 / (k1 (1 - b + b L)) of each document, in Lucene's order of operations and precision."""
    mean = np.float32(int(lengths.sum(dtype=np.int64)) / int(np.count_nonzero(lengths)))
    values, where = np.unique(lengths, return_inverse=True)
    kept = np.array(
        [decoded_length(encoded_length(value)) for value in values.tolist()], np.float32
    )
    one = np.float32(1)
    factors: Array = one / (K1 * ((one - B) + B * kept / mean))
    return factors[where]


def encoded_length(length: int) -> int:
    """The byte in which Lucene stores a document's length: exact below 40, then with 4 significant
    bits."""
    if length < _EXACT:
        return length
    rest = length - _EXACT
    shift = max(rest.bit_length() - 4, -1)
    return _EXACT + (rest if shift < 0 else (rest >> shift) & 7 | (shift + 1) << 3)


def decoded_length(byte: int) -> int:
    """The smallest length that `encoded_length` maps to a byte."""
    if byte < _EXACT:
        return byte
    mantissa, shift = (byte - _EXACT) & 7, (byte - _EXACT >> 3) - 1
    return _EXACT + (mantissa if shift < 0 else (mantissa | 8) << shift)


def reported_scores(scores: Sequence[float]) -> list[float]:
    """Scores of a search as Anserini reports them, and as they are in WebShop's recordings.

    They are rounded to 4 decimals; of scores that are then equal, each is a millionth below the one
    before. The ranking itself uses the unrounded scores.
    """
    reported: list[np.float32] = []
    ties = 0
    for score in scores:
        rounded = np.float32(math.floor(score * 1e4 + 0.5) / 1e4)
        ties = ties + 1 if reported and not reported[-1] - rounded > np.float32(1e-4) else 0
        reported.append(rounded - np.float32(1e-6) * np.float32(ties) if ties else rounded)
    return [float(score) for score in reported]
