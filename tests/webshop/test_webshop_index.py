"""The search index against BM25 written out term by term, in memory and in a folder."""

import errno
import json
import math
import os
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rro.errors import DataError, RroError
from rro.webshop import index as index_module
from rro.webshop import scoring
from rro.webshop.analysis import QueryError, analyze
from rro.webshop.index import (
    Index,
    build,
    build_folder,
    decoded_length,
    encoded_length,
    reported_scores,
)
from rro.webshop.index_store import StringTable

WORDS = ["red", "Red's", "shoe", "shoes,", "blue", "the", "x", "müller", "42", "★", "large", "sock"]
texts_of_words = st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)
catalogues = st.lists(texts_of_words, min_size=1, max_size=12).filter(
    lambda texts: any(map(analyze, texts))
)


def ids_for(texts, seed=0):
    """Distinct ids whose order is not that of the catalogue."""
    return [f"B{(number * 7919 + seed) % 10_007:05d}" for number in range(len(texts))]


def plain_search(ids, texts, query, k):
    """Lucene's formula, one document and one term at a time; nothing shared with the module but the
    analysis."""
    one, k1, b = np.float32(1), np.float32(0.9), np.float32(0.4)
    documents = [Counter(analyze(text)) for text in texts]
    filled = [sum(terms.values()) for terms in documents if terms]
    mean = np.float32(sum(filled) / len(filled))
    hits = []
    for number, terms in enumerate(documents):
        kept = max(
            decoded_length(byte)
            for byte in range(256)
            if decoded_length(byte) <= sum(terms.values())
        )
        inverse = one / (k1 * ((one - b) + b * np.float32(kept) / mean))
        total, found = 0.0, False
        for term, times in Counter(analyze(query)).items():
            if term in terms:
                frequency = sum(term in other for other in documents)
                idf = np.float32(math.log(1 + (len(filled) - frequency + 0.5) / (frequency + 0.5)))
                weight = np.float32(times) * idf
                total += float(weight - weight / (one + np.float32(terms[term]) * inverse))
                found = True
        if found:
            hits.append((-float(np.float32(total)), ids[number], number))
    return [(number, -score) for score, _, number in sorted(hits)[:k]]


@given(catalogues, texts_of_words, st.integers(1, 15))
def test_search_is_bm25_term_by_term(texts, query, k):
    ids = ids_for(texts)
    assert build(ids, texts).search(query, k) == plain_search(ids, texts, query, k)


@settings(max_examples=20)
@given(catalogues, st.lists(texts_of_words, max_size=4), st.integers(1, 200))
def test_a_folder_built_in_runs_is_the_index_in_memory(texts, queries, run_tokens):
    ids = ids_for(texts)
    memory = build(ids, texts)
    with tempfile.TemporaryDirectory() as scratch:
        streamed = build_folder(Path(scratch, "streamed"), ids, iter(texts), run_tokens)
        memory.save(Path(scratch, "saved"))
        saved = Index.open(Path(scratch, "saved"))
        for name, values in memory.arrays.items():
            assert values.tobytes() == streamed.arrays[name].tobytes()
            assert values.tobytes() == saved.arrays[name].tobytes()
        for query in queries:
            assert memory.search(query) == streamed.search(query) == saved.search(query)
        assert sorted(os.listdir(scratch)) == ["saved", "streamed"]
        assert set(os.listdir(Path(scratch, "streamed"))) == set(os.listdir(Path(scratch, "saved")))


@pytest.fixture(scope="module")
def large():
    """5,000 short texts: thousands of equal scores."""
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 6))) for _ in range(5_000)]
    return build(ids_for(texts), texts)


@pytest.mark.parametrize(
    "query", ["red", "shoe sock", "red red blue 42", "★ müller x large", "nothing"]
)
def test_the_best_are_the_same_however_many_are_asked_for(large, query, monkeypatch):
    everything = large.search(query, len(large))
    ranked = sorted(everything, key=lambda hit: (-hit[1], large.ids[hit[0]]))
    assert everything == ranked
    # All documents are scored exactly, or those that may be among the best.
    for small, blocks, few in ((1 << 30, 1, 1), (0, 5_000, 5_000), (0, 100, 5_000), (0, 100, 1)):
        monkeypatch.setattr(index_module, "SMALL", small)
        monkeypatch.setattr(scoring, "BLOCKS", blocks)
        monkeypatch.setattr(index_module, "FEW", few)
        for k in (1, 2, 50, 1_000):
            assert large.search(query, k) == everything[:k]


words_by_rank = st.integers(0, 399).map(lambda number: f"w{int(number**2 / 400)}")


@settings(max_examples=40)
@given(
    *(st.integers(0, 9), st.lists(words_by_rank, min_size=1, max_size=30), st.integers(1, 60)),
    st.sampled_from([1, 50, 5_000]),
)
def test_scoring_the_likely_alone_changes_no_hit(number, words, k, few):
    """Rare and common words, many more documents than are asked for."""
    index = zipf_index(number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "SMALL", 1 << 30)
        every = index.search(" ".join(words), k)
        patch.setattr(index_module, "SMALL", 0)
        patch.setattr(scoring, "BLOCKS", 128)
        patch.setattr(index_module, "FEW", few)
        assert index.search(" ".join(words), k) == every


@cache
def zipf_index(number):
    rng = np.random.default_rng(number)
    ranks = np.minimum(rng.zipf(1.3, (2_000, 12)), 400) - 1
    texts = [" ".join(f"w{rank}" for rank in row[: rng.integers(2, 13)]) for row in ranks]
    return build(ids_for(texts), texts)


def test_equal_scores_rank_by_id():
    found = build(["C", "A", "D", "B"], ["red shoe", "red shoe", "red", "shoe red"]).search("shoe")
    assert [number for number, _ in found] == [1, 3, 0]
    assert len({score for _, score in found}) == 1


def test_queries_without_a_known_term_find_nothing_and_impossible_ones_are_refused():
    index = build(["A"], ["red shoe"])
    assert index.search("") == index.search("the of") == index.search("sock") == []
    with pytest.raises(QueryError):
        index.search(" ".join(f"w{number}" for number in range(1_025)))
    with pytest.raises(QueryError):
        index.search("red \udc00")


def test_lengths_are_kept_as_lucene_keeps_them():
    """Values of Lucene 8's SmallFloat.intToByte4 and byte4ToInt."""
    assert [encoded_length(length) for length in (0, 1, 39, 40, 41, 42, 100, 2**31 - 1)] == [
        0,
        1,
        39,
        40,
        40,
        41,
        57,
        255,
    ]
    assert [decoded_length(byte) for byte in (0, 39, 40, 41, 56, 57, 255)] == [
        0,
        39,
        40,
        42,
        88,
        96,
        2013265944,
    ]
    for byte in range(256):
        assert encoded_length(decoded_length(byte)) == byte
        assert byte == 255 or encoded_length(decoded_length(byte + 1) - 1) == byte


def test_reported_scores_round_and_part_ties():
    scores = [9.87654321, 4.590549945831299, 2.0, 2.0, 2.00001, 1.0]
    expected = [9.8765, 4.5905, 2.0, 1.999999, 1.999998, 1.0]
    assert reported_scores(scores) == pytest.approx(expected, abs=4e-7)
    assert reported_scores([]) == []


def test_a_string_table_finds_what_it_holds():
    strings = sorted(word.encode() for word in WORDS)
    table = StringTable(*StringTable.pack(strings))
    assert list(table) == strings
    assert [table.find(string) for string in strings] == list(range(len(strings)))
    assert [table.find(string) for string in (b"", b"shoe ", b"\xff")] == [None, None, None]


def test_an_index_knows_its_ids():
    index = build(["AB", "C"], ["red", "shoe"])
    assert list(index.ids) == [b"AB", b"C"]


def test_a_catalogue_that_cannot_be_indexed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="2 ids for 1 texts"):
        build(["A", "B"], ["red"])
    for ids, texts in (([], []), (["A"], ["the"])):
        with pytest.raises(DataError, match="right catalogue"):
            build_folder(tmp_path / "index", ids, texts)
    assert os.listdir(tmp_path) == []


def interrupted():
    yield "red shoe"
    raise KeyboardInterrupt


def test_an_interrupted_build_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        build_folder(tmp_path / "index", ["A", "B"], interrupted(), run_tokens=1)
    assert os.listdir(tmp_path) == []


def test_a_full_disc_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(RroError, match=r"cannot write the search index .* No space left on device"):
        build_folder(tmp_path / "index", ["A"], ["red"])
    assert os.listdir(tmp_path) == []


def test_what_is_no_index_or_another_version_is_refused(tmp_path):
    folder = tmp_path / "index"
    with pytest.raises(DataError, match="has no search index"):
        Index.open(folder)
    build(["A"], ["red shoe"]).save(folder)
    with pytest.raises(DataError, match="exists already"):
        build_folder(folder, ["A"], ["red"])
    schema = json.loads((folder / "schema.json").read_text())
    (folder / "schema.json").write_text(json.dumps({**schema, "version": 0}))
    with pytest.raises(
        DataError, match="version 0, this version of rro reads 1: delete the folder"
    ):
        Index.open(folder)
    (folder / "schema.json").write_text("{")
    with pytest.raises(DataError, match=r"schema.json is damaged"):
        Index.open(folder)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"", lambda data: b"x" + data[1:], None]
)
def test_a_damaged_file_is_named(tmp_path, damage):
    build(["A"], ["red shoe"]).save(tmp_path / "index")
    path = tmp_path / "index" / "docs.npy"
    if damage:
        path.write_bytes(damage(path.read_bytes()))
    else:
        path.unlink()
    with pytest.raises(DataError, match=r"docs.npy is missing or damaged"):
        Index.open(tmp_path / "index")


def test_a_file_of_another_index_is_named(tmp_path):
    build(["A"], ["red shoe"]).save(tmp_path / "index")
    np.save(tmp_path / "index" / "docs.npy", np.zeros(3, np.int32))
    with pytest.raises(DataError, match=r"docs.npy does not match schema.json"):
        Index.open(tmp_path / "index")
