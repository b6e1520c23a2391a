"""The search index of a catalogue: the ranking of Lucene 8.11's BM25 as Anserini configures it, to
the last bit.

Score of a document for a query: the sum over the query's distinct terms of w - w / (1 + tf / (k1 (1
- b + b L))), with w = (times in the query) * idf. L is the document's length over the mean, the
length first rounded to the 256 values that Lucene keeps in a byte. Everything is float32 but the
sum, which is double and cast to float32 at its end. Equal scores rank by id. So the one thing to
store for each posting is the bracket, here called its denominator.

One class and one path serve an index in memory and one mapped from a folder: `Index` only sees
arrays. Building is the same for both too: the texts are inverted in runs of bounded size, the runs
merged. Source of the facts: Lucene's BM25Similarity and SmallFloat; Anserini's
BagOfWordsQueryGenerator and its tie-breaking by id."""

from __future__ import annotations

import heapq
import math
import shutil
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from rro.errors import DataError
from rro.webshop.analysis import analyze, query_terms
from rro.webshop.index_store import Array, MemoryStore, Store, StringTable, new_folder, open_folder

K1, B = np.float32(0.9), np.float32(0.4)  # Anserini's defaults, which WebShop uses
# Raise the version with any change to the arrays or to the analysis of texts: folders built before
# are then refused.
HEADER = {"format": "rro webshop index", "version": 1, "k1": float(K1), "b": float(B)}

RUN_TOKENS = 4_000_000  # tokens inverted at a time: about 200 MB of memory
_FEW_POSTINGS = 1 << 16
_BLOCK = 1 << 10
# lengths below have a byte of their own: those that 4 bits of mantissa for up to 2^31 leave over of
# 256
_EXACT = 24


class Postings(NamedTuple):
    """The documents with a term, ascending, with the denominators of their scores, and the term's
    idf."""

    docs: Array
    denominators: Array
    idf: np.float32


class Index:
    """A searchable catalogue. Documents are numbered from 0 in the order of the catalogue."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = arrays
        self.ids = StringTable(arrays["id_blob"], arrays["id_offsets"])
        self._terms = StringTable(arrays["term_blob"], arrays["term_offsets"])
        self._starts, self._idf = arrays["starts"], arrays["idf"]
        self._docs, self._denominators = arrays["docs"], arrays["denominators"]
        self._ranks = arrays["ranks"]  # of each document among the ids in ascending order
        self._postings = lru_cache(maxsize=1 << 15)(
            self._look_up
        )  # views of the arrays, not copies

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Map the index that `build_folder` or `save` wrote. Raises DataError where it is none,
        damaged or of another version. Files are read page by page when a search needs them."""
        return cls(open_folder(Path(folder), HEADER))

    def save(self, folder: Path | str) -> None:
        """Write this index into a new folder. Raises DataError where it exists, RroError where the
        disc is full."""
        with new_folder(Path(folder), HEADER) as store:
            for name, values in self._arrays.items():
                store.new(name, values.dtype, len(values))[:] = values

    def __len__(self) -> int:
        return len(self._ranks)

    def has_ids(self, ids: Sequence[str]) -> bool:
        """Whether these are the ids it was built with, in order: a check that it belongs to a
        catalogue."""
        blob, offsets = StringTable.pack(id.encode() for id in ids)
        mine = self._arrays["id_blob"], self._arrays["id_offsets"]
        return np.array_equal(offsets, mine[1]) and np.array_equal(blob, mine[0])

    def search(self, query: str, k: int = 50) -> list[tuple[int, float]]:
        """The best `k` documents as (number, score), best first; fewer where fewer share a term
        with the query.

        Scores are float32 values. Raises QueryError for a query that the original engine fails
        on."""
        counts = query_terms(query)
        found = [
            (np.float32(counts[term]), postings)
            for term in counts
            if (postings := self._postings(term))
        ]
        return self._best(self._sums(found), k) if found else []

    def _look_up(self, term: str) -> Postings | None:
        number = self._terms.find(term.encode())
        if number is None:
            return None
        own = slice(int(self._starts[number]), int(self._starts[number + 1]))
        return Postings(self._docs[own], self._denominators[own], self._idf[number])

    def _sums(self, found: Sequence[tuple[np.float32, Postings]]) -> Array:
        """Every document's score in double precision, the terms added in the order of the query."""
        weights = [count * postings.idf for count, postings in found]
        lengths = [len(postings.docs) for _, postings in found]
        if (
            sum(lengths) <= _FEW_POSTINGS
        ):  # one pass over all, for the sake of small catalogues: the same sums
            docs = np.concatenate([postings.docs for _, postings in found])
            denominators = np.concatenate([postings.denominators for _, postings in found])
            repeated = np.repeat(np.array(weights, np.float32), lengths)
            return np.bincount(docs, repeated - repeated / denominators, minlength=len(self))
        sums = np.zeros(len(self))
        for weight, (_, postings) in zip(weights, found, strict=True):
            sums[postings.docs] += weight - weight / postings.denominators
        return sums

    def _best(self, sums: Array, k: int) -> list[tuple[int, float]]:
        scores = sums.astype(np.float32)
        # Every document with a term has a score above 0: a length is at most len(self) times the
        # mean, so for up to ten million documents a denominator exceeds 1 by two units in the last
        # place or more.
        floor = _floor(scores, k)
        found = np.flatnonzero(scores >= floor) if floor > 0 else np.flatnonzero(scores)
        # Positive floats sort as their bits do. With the rank below them no two keys are equal, so
        # ties are settled.
        keys = (scores[found].view(np.int32).astype(np.int64) << 32) - self._ranks[found]
        best = found[np.argsort(keys)[: -k - 1 : -1]]
        return list(zip(best.tolist(), scores[best].tolist(), strict=True))


def _floor(scores: Array, k: int) -> float:
    """A score that at least `k` documents reach: the k-th best of the maxima of blocks. 0 where
    there are few blocks. Spares large catalogues from sorting a million scores."""
    blocks = len(scores) // _BLOCK
    if blocks < 2 * k:
        return 0.0
    maxima = scores[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
    return float(np.partition(maxima, blocks - k)[blocks - k])


def build(ids: Sequence[str], texts: Iterable[str]) -> Index:
    """Index `texts` in memory; `ids` settle ties. Raises DataError where no text has a word,
    ValueError where the numbers of ids and texts differ."""
    store = MemoryStore()
    _build(store, ids, texts, RUN_TOKENS, lambda run: run)
    return Index(store.arrays)


def build_folder(
    folder: Path | str, ids: Sequence[str], texts: Iterable[str], run_tokens: int = RUN_TOKENS
) -> Index:
    """As `build`, into a new folder that `Index.open` reads; returns it opened. Holds about
    `run_tokens` tokens in memory at a time. Raises also DataError where the folder exists, RroError
    where the disc is full."""
    with new_folder(Path(folder), HEADER) as store:
        runs = store.folder / "runs"
        runs.mkdir()
        _build(store, ids, texts, run_tokens, lambda run: run.moved_to(runs))
        shutil.rmtree(runs)
    return Index.open(folder)


@dataclass(frozen=True, slots=True)
class _Run:
    """The inverted texts of a stretch of documents: its terms in order, how many documents have
    each, and for each of those the document and how often; and each document's length in terms."""

    term_blob: Array
    term_offsets: Array
    counts: Array
    docs: Array
    frequencies: Array
    lengths: Array

    def moved_to(self, folder: Path) -> _Run:
        """The same, out of memory: in files of `folder`."""
        number = len(list(folder.iterdir()))
        arrays = []
        for field in fields(self):
            path = folder / f"{number:06d}-{field.name}.npy"
            np.save(path, getattr(self, field.name))
            arrays.append(np.asarray(np.load(path, mmap_mode="r")))
        return _Run(*arrays)


def _build(
    store: Store,
    ids: Sequence[str],
    texts: Iterable[str],
    run_tokens: int,
    keep: Callable[[_Run], _Run],
) -> None:
    runs = [keep(run) for run in _runs(iter(texts), run_tokens)]
    documents = sum(len(run.lengths) for run in runs)
    if documents != len(ids):
        raise ValueError(f"{len(ids)} ids for {documents} texts")
    if not any(run.lengths.any() for run in runs):
        raise DataError("no product has a word that can be searched: is this the right catalogue?")
    for name, values in zip(
        ("id_blob", "id_offsets"), StringTable.pack(id.encode() for id in ids), strict=True
    ):
        _put(store, name, values)
    ranks = np.empty(documents, np.int32)
    ranks[sorted(range(documents), key=ids.__getitem__)] = np.arange(documents, dtype=np.int32)
    _put(store, "ranks", ranks)
    _merge(store, runs)


def _put(store: Store, name: str, values: Array) -> None:
    store.new(name, values.dtype, len(values))[:] = values


def _runs(texts: Iterator[str], run_tokens: int) -> Iterator[_Run]:
    first = 0
    while (run := _inverted(texts, first, run_tokens)) is not None:
        yield run
        first += len(run.lengths)


def _inverted(texts: Iterator[str], first: int, run_tokens: int) -> _Run | None:
    """The next texts, up to `run_tokens` tokens, numbered from `first`. None at the end."""
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__  # a term that is new gets the next number
    tokens, lengths = array("i"), array("i")
    for text in texts:
        terms = analyze(text)
        tokens.extend(map(numbers.__getitem__, terms))
        lengths.append(len(terms))
        if len(tokens) >= run_tokens:
            break
    if not lengths:
        return None
    words = sorted(numbers)  # by code point, which is the order of their UTF-8 too
    places = np.empty(len(words), np.int64)
    places[[numbers[word] for word in words]] = np.arange(len(words))
    # One sort does it: by term, then by document, equal ones counted.
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
    """One list of postings for each term from those of the runs; a run's documents come after the
    run's before it."""
    (blob, offsets), places = _merged_terms(runs)
    _put(store, "term_blob", blob)
    _put(store, "term_offsets", offsets)
    counts = np.zeros(len(offsets) - 1, np.int64)
    for run, place in zip(runs, places, strict=True):
        counts[place] += run.counts
    starts = np.concatenate([[0], np.cumsum(counts)])
    lengths = np.concatenate([run.lengths for run in runs])
    _put(store, "starts", starts)
    _put(store, "idf", _idf(counts, int(np.count_nonzero(lengths))))

    factors = _length_factors(lengths)
    docs = store.new("docs", np.int32, int(starts[-1]))
    denominators = store.new("denominators", np.float32, int(starts[-1]))
    free = starts[:-1].copy()  # where each term's next posting goes
    for run, place in zip(runs, places, strict=True):
        own = np.cumsum(run.counts) - run.counts
        target = np.repeat(free[place] - own, run.counts) + np.arange(len(run.docs))
        docs[target] = run.docs
        denominators[target] = (
            np.float32(1) + run.frequencies.astype(np.float32) * factors[run.docs]
        )
        free[place] += run.counts


def _merged_terms(runs: Sequence[_Run]) -> tuple[tuple[Array, Array], list[Array]]:
    """All terms in order as (blob, offsets), and for each run the places of its terms among
    them."""
    places = [array("q") for _ in runs]

    def distinct() -> Iterator[bytes]:
        tables = [StringTable(run.term_blob, run.term_offsets) for run in runs]
        place, last = -1, None
        for term, number in heapq.merge(
            *(zip(table, repeat(number)) for number, table in enumerate(tables))
        ):
            if term != last:
                place, last = place + 1, term
                yield term
            places[number].append(place)

    return StringTable.pack(distinct()), [np.array(own, np.int64) for own in places]


def _idf(counts: Array, documents: int) -> Array:
    """Inverse document frequencies, of the documents that have any term at all."""
    values, where = np.unique(counts, return_inverse=True)
    logarithms = [
        math.log(1 + (documents - count + 0.5) / (count + 0.5)) for count in values.tolist()
    ]
    return np.array(logarithms, np.float32)[where]


def _length_factors(lengths: Array) -> Array:
    """1 / (k1 (1 - b + b L)) of each document, in the order of operations and the precision of
    Lucene."""
    mean = np.float32(int(lengths.sum(dtype=np.int64)) / int(np.count_nonzero(lengths)))
    values, where = np.unique(lengths, return_inverse=True)
    kept = np.array(
        [decoded_length(encoded_length(value)) for value in values.tolist()], np.float32
    )
    one = np.float32(1)
    factors: Array = one / (K1 * ((one - B) + B * kept / mean))
    return factors[where]


def encoded_length(length: int) -> int:
    """The byte that Lucene keeps of a document's length: exact below 24 + 16 = 40, then 4
    significant bits."""
    if length < _EXACT:
        return length
    rest = length - _EXACT
    shift = max(rest.bit_length() - 4, -1)
    return _EXACT + (rest if shift < 0 else (rest >> shift) & 7 | (shift + 1) << 3)


def decoded_length(byte: int) -> int:
    """The length that a byte stands for: the least that is encoded as it."""
    if byte < _EXACT:
        return byte
    mantissa, shift = (byte - _EXACT) & 7, (byte - _EXACT >> 3) - 1
    return _EXACT + (mantissa if shift < 0 else (mantissa | 8) << shift)


def reported_scores(scores: Sequence[float]) -> list[float]:
    """`scores` of a search as Anserini reports them and WebShop's recordings hold them: rounded to
    4 decimals, and of those then equal each lower by a millionth than the one above. The ranking
    itself is by the unrounded scores."""
    reported: list[np.float32] = []
    ties = 0
    for score in scores:
        rounded = np.float32(math.floor(score * 1e4 + 0.5) / 1e4)
        ties = ties + 1 if reported and not reported[-1] - rounded > np.float32(1e-4) else 0
        reported.append(rounded - np.float32(1e-6) * np.float32(ties) if ties else rounded)
    return [float(score) for score in reported]
