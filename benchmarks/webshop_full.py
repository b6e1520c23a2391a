"""Search in a catalogue of WebShop's full size: `python -m benchmarks.webshop_full [--products N]
[--folder FOLDER]`.

Generates a catalogue's texts, builds the memory-mapped index once, opens it in a fresh process, and
prints one JSON object: seconds to build and to open, resident memory, and the time of a search at
its median and 95th percentile. "cold" is the first pass over the queries after the files were
dropped from the page cache, "warm" the second. Then the ranking of every query is compared between
an index in memory and one mapped from a folder: over a part of the catalogue (--compare), or over
the whole (--whole, several GB and as much time again).

The texts are random words, made to resemble the 1000 products that WebShop ships, measured with its
own analysis: 131 tokens a product, 18 % of them stop words, lengths log-normal, the document
frequencies of its terms by rank (FREQUENCIES), and a vocabulary that goes on growing (here a little
faster than theirs: 17,000 terms after 1000 products, not 12,000)."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rro.runs.progress import Progress
from rro.webshop.index import Index, build, build_folder

FULL = 1_181_436  # products of WebShop's items_shuffle.json
VOCABULARY = 800_000
FREQUENCIES = {
    1: 0.44,
    5: 0.34,
    10: 0.25,
    20: 0.18,
    50: 0.13,
    100: 0.082,
    200: 0.057,
    500: 0.028,
    1000: 0.014,
    2000: 0.006,
}
TAIL_EXPONENT = 1.5  # beyond the last of them
MEDIAN_LENGTH, LENGTH_SPREAD = 93, 0.82
REPEATED = 0.36  # share of the words that repeat one of the same product
BLOCK = 2_000  # products that share a random stream, so that any stretch can be made again
STOPS = ("the", "and", "with", "for", "of", "to", "a", "in", "it", "this", "is", "are", "or", "on")
RARE = ("★", "❤\ufe0f", "women’s", "café", "18\u202foz", "【new】")  # written with more than ASCII


def main() -> None:
    arguments = _arguments()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, _queries(arguments))))
        return
    with tempfile.TemporaryDirectory(prefix="webshop-full-") as scratch:
        folder = arguments.folder or Path(scratch, "index")
        report: dict[str, Any] = {"products": arguments.products, "queries": arguments.queries}
        if not folder.exists():
            report["build"] = _build(folder, arguments.products)
        report |= _measure_in_fresh_process(folder, arguments)
        report["same_ranking"] = _compare(
            folder if arguments.whole else Path(scratch, "part"), arguments
        )
    print(json.dumps(report, indent=2))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.webshop_full", description=__doc__)
    parser.add_argument("--products", type=int, default=FULL)
    parser.add_argument(
        "--folder", type=Path, help="of the index: kept, and used again if it is there"
    )
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument(
        "--compare", type=int, default=20_000, help="products of the comparison in memory"
    )
    parser.add_argument("--whole", action="store_true", help="compare over all products instead")
    parser.add_argument(
        "--measure", type=Path, help=argparse.SUPPRESS
    )  # what the fresh process does
    return parser.parse_args()


def ids(products: int) -> list[str]:
    """Distinct ids in the form of Amazon's, in no particular order."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    numbers = (np.arange(products, dtype=np.int64) * 1_299_709_211 + 7) % 36**7
    return [
        "B0" + "".join(digits[number // 36**place % 36] for place in range(7)) + "Q"
        for number in numbers.tolist()
    ]


def texts(products: int) -> Iterator[str]:
    """The first `products` product texts, always the same."""
    for first in range(0, products, BLOCK):
        yield from islice(_block(first // BLOCK), products - first)


def _block(number: int) -> Iterator[str]:
    rng = np.random.default_rng([233, number])
    lengths = np.maximum(rng.lognormal(np.log(MEDIAN_LENGTH), LENGTH_SPREAD, BLOCK).astype(int), 4)
    ends = np.cumsum(lengths)
    words = np.searchsorted(_distribution(), rng.random(ends[-1]))
    repeats = np.flatnonzero(rng.random(ends[-1]) < REPEATED)
    owner = np.searchsorted(ends, repeats, side="right")
    words[repeats] = words[
        ends[owner] - 1 - (rng.random(len(repeats)) * lengths[owner]).astype(int)
    ]
    spelled = _vocabulary()[words]
    spelled[rng.random(len(spelled)) < 0.12] += ","
    return (
        " ".join(spelled[end - length : end])
        for length, end in zip(lengths.tolist(), ends.tolist(), strict=True)
    )


@cache
def _vocabulary() -> npt.NDArray[np.object_]:
    """STOPS and RARE, then words of syllables, the frequent ones short."""
    syllables = [consonant + vowel for consonant in "bcdfgklmnprstvz" for vowel in "aeiou"]
    words = [*STOPS, *RARE]
    for number in range(
        len(syllables), VOCABULARY + len(syllables)
    ):  # one syllable alone might be a stop word
        word = ""
        while number >= 0:
            number, digit = divmod(number, len(syllables))
            word, number = syllables[digit] + word, number - 1
        words.append(word)
    return np.array(words, dtype=object)


@cache
def _distribution() -> npt.NDArray[np.float64]:
    """Cumulative probabilities of the vocabulary: those of words by interpolation between
    FREQUENCIES."""
    ranks = np.arange(1, VOCABULARY + 1)
    known = np.array(list(FREQUENCIES)), -np.log1p(-np.array(list(FREQUENCIES.values())))
    shares = np.exp(np.interp(np.log(ranks), np.log(known[0]), np.log(known[1])))
    tail = ranks > known[0][-1]
    shares[tail] = known[1][-1] * (ranks[tail] / known[0][-1]) ** -TAIL_EXPONENT
    stops, rare = np.full(len(STOPS), 0.175 / len(STOPS)), np.full(len(RARE), 0.005 / len(RARE))
    cumulative = np.cumsum(np.concatenate([stops, rare, shares / shares.sum() * 0.82]))
    cumulative[-1] = 1
    return cumulative


def _queries(arguments: argparse.Namespace) -> list[str]:
    """Searches as agents write them, for products of the catalogue: a few of their words, a title's
    worth, or a whole instruction of rare and common ones. Lengths as in recorded searches: 2-4
    terms, 14 terms, 22 terms."""
    rng = np.random.default_rng(11)
    common = _vocabulary()[: len(STOPS) + len(RARE) + 150]
    queries = []
    for text in islice(texts(arguments.products), arguments.queries):
        words = text.replace(",", "").split()
        kind = rng.choice(["words", "title", "instruction"], p=[0.4, 0.3, 0.3])
        if kind == "words":
            chosen = list(rng.choice(words, rng.integers(2, 5)))
        elif kind == "title":
            chosen = words[:16]
        else:
            chosen = [*rng.choice(words, 14), *rng.choice(common, 12)]
        queries.append(" ".join(chosen))
    return queries


def _build(folder: Path, products: int) -> dict[str, Any]:
    begun = time.perf_counter(), time.process_time()
    with Progress("building the index", products, "products") as progress:
        build_folder(folder, ids(products), _counted(texts(products), progress))
    return {
        "seconds": round(time.perf_counter() - begun[0], 1),
        "processor_seconds": round(time.process_time() - begun[1], 1),
        "peak_resident_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "folder_mb": round(sum(file.stat().st_size for file in folder.iterdir()) / 2**20),
    }


def _counted(items: Iterator[str], progress: Progress) -> Iterator[str]:
    for item in items:
        yield item
        progress.advance()


def _measure_in_fresh_process(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    for file in folder.iterdir():  # out of the page cache, as after a restart of the machine
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    options = [f"--{name}={getattr(arguments, name)}" for name in ("products", "queries")]
    command = [sys.executable, "-m", "benchmarks.webshop_full", f"--measure={folder}", *options]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(answer.stdout))


def measure(folder: Path, queries: Sequence[str]) -> dict[str, Any]:
    """Open the index and search: seconds, milliseconds a search, and resident megabytes of this
    process by kind. Those before opening are the interpreter's, the libraries', and of the
    vocabulary that the queries were made from."""
    before = _resident()
    begun = time.perf_counter()
    index = Index.open(folder)
    opened = time.perf_counter()
    index.search(queries[0])
    first = time.perf_counter() - opened
    after_open = _resident()
    passes = {name: _milliseconds(index, queries) for name in ("cold", "warm")}
    after = _resident()
    return {
        "terms": len(index.arrays["term_offsets"]) - 1,
        "postings": len(index.arrays["docs"]),
        "open_seconds": round(opened - begun, 4),
        "first_search_seconds": round(first, 3),
        "search_ms": passes,
        "resident_mb": {
            "before_opening": before,
            "after_first_search": after_open,
            "after_all_searches": after,
        },
    }


def _milliseconds(index: Index, queries: Sequence[str]) -> dict[str, dict[str, float]]:
    """A search's wall time and, as other work on the machine adds to that, its processor time."""
    wall, processor = [], []
    for query in queries:
        begun = time.perf_counter(), time.thread_time()
        index.search(query)
        wall.append(1000 * (time.perf_counter() - begun[0]))
        processor.append(1000 * (time.thread_time() - begun[1]))
    kinds = {"wall": wall, "processor": processor}
    return {
        kind: {f"p{at}": round(float(np.percentile(times, at)), 2) for at in (50, 95, 100)}
        for kind, times in kinds.items()
    }


def _resident() -> dict[str, int]:
    """Resident megabytes: "file" is mapped from files (the index, libraries) and given back when
    memory runs short."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    sizes = {
        name: int(lines[key].split()[0]) >> 10
        for name, key in (("all", "VmRSS"), ("file", "RssFile"))
    }
    return {**sizes, "anonymous": int(lines["RssAnon"].split()[0]) >> 10}


def _compare(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every query's hits and scores, in memory and mapped; `folder` is built if it is not there."""
    products = arguments.products if arguments.whole else min(arguments.compare, arguments.products)
    if not folder.exists():
        build_folder(folder, ids(products), texts(products), run_tokens=500_000)
    mapped, memory = Index.open(folder), build(ids(products), texts(products))
    queries = _queries(arguments)
    equal = sum(mapped.search(query) == memory.search(query) for query in queries)
    return {"products": products, "queries": len(queries), "equal": equal}


if __name__ == "__main__":
    main()
